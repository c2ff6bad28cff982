"""Questions to trained networks: neurons, filters, runs beside each other.

An outsider begins with `neurons.py`::

    neurons.py          the best neuron of every stage, and what it has to beat
    single_neurons.py   the paper's test of single neurons
    baselines.py        linear filters cut from training images
    comparison.py       the table of neurons and baselines, and its verdicts
    filters.py          is a filter oriented, is it localised
    convergence.py      how runs learn, at equal work and at equal time
    figures.py          the pictures of a run
    replica_figures.py  how a run with parameter servers went
"""
