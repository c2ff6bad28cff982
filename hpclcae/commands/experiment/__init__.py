"""``hpclcae experiment ...``: questions of the paper to a trained network.

An outsider begins with `tolerance.py`::

    tolerance.py  how a neuron's response stands shift, scale and covering
    categories.py fine-tuned runs and their controls
"""
