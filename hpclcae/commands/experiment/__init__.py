"""``hpclcae experiment ...``: questions of the paper to a trained network.

An outsider begins with `concepts.py`::

    all.py          every experiment, in order, as far as it is not done
    arguments.py    what several experiments are told
    concepts.py     Table 1: best neurons beside chance, random weights, linear filters
    autoencoders.py  Table 2: deep sigmoid autoencoders
    kmeans.py       Table 2: k-means on small images
    without_faces.py  control: training images without faces
    histograms.py   responses of the best neurons, the concept against the rest
    stimuli.py      the images that neurons respond to most, and their numerical optima
    invariance.py   how a response stands shift, scale, rotation, turning and covering
    map.py          where selective neurons are, and how many chance would give
    probes.py       what labels can tell from every stage
    film.py         responses to a film, frame by frame
    sensitivity.py  accuracy against receptive field and number of maps
    categories.py   fine-tuned runs and their controls
"""
