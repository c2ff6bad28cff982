"""``hpclcae experiment ...``: questions of the paper to a trained network.

An outsider begins with `invariance.py`::

    arguments.py   what several experiments are told
    invariance.py  how a neuron's response stands shift, scale, rotation, turning and covering
"""
