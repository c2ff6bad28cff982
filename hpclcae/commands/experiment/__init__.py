"""``hpclcae experiment ...``: questions of the paper to a trained network.

An outsider begins with `concepts.py`::

    all.py        every experiment, in order, as far as it is not done
    concepts.py   Table 1: best neurons beside chance, random weights, linear filters
    autoencoders.py  Table 2: deep sigmoid autoencoders
    kmeans.py     Table 2: k-means on small images
    without_faces.py  control: training images without faces
    tolerance.py  how a neuron's response stands shift, scale and covering
"""
