"""Benchmarks (``hpclcae bench ...``): they print a table and append JSON rows to a file."""
