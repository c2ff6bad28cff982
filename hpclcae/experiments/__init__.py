"""Questions to trained networks: neurons, filters, runs beside each other.

An outsider begins with `neurons.py`::

    neurons.py          the best neuron of every stage, and what it has to beat
    labelled_images.py  the test images: halves, groups, what numbers rest on
    single_neurons.py   the paper's test of single neurons
    close_look.py       one neuron with one threshold: AUC, sources, bootstrap
    baselines.py        linear filters, and the best that is linear
    training_images.py  training images drawn and read
    comparison.py       the table of neurons and baselines, and its verdicts
    seeds.py            several runs in one table
    results.py          results in a run folder
    made_from.py        fingerprints of what results were made from
    scan.py             a neuron at every place and several scales of a picture
    scan_results.py     the heat maps and tables of a scan
    tolerance.py        a neuron's response against shift, scale and covering
    tolerance_results.py  its tables, files and figure
    classification.py   how well a classifier does on the final half
    class_figures.py    how it learnt, what it confuses, how far to trust it
    filters.py          is a filter oriented, is it localised
    categories.py       fine-tuned runs and their controls in one table
    category_results.py its tables, JSON and curve
    predictions.py      what a classifier says about pictures
    convergence.py      how runs learn, at equal work and at equal time
    figures.py          the pictures of a run
    replica_figures.py  how a run with parameter servers went
"""
