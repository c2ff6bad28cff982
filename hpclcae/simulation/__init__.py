"""Asynchronous training on many machines, simulated: times predicted, arithmetic real.

An outsider begins with `cluster.py`::

    images.py      images to learn from, drawn from a seed
    arithmetic.py  replicas' clients and the servers' stores, driven step by step
    cluster.py     who computes, fetches and pushes when: events of simulated time
    failures.py    a job of days through failures of machines
    results.py     tables and JSON
    figures.py     plots
"""
