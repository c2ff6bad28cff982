"""Benchmarks: commands that print a table and append one JSON object a row (``hpclcae bench ...``).
"""
