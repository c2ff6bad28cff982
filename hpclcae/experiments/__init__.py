"""Questions to trained networks: neurons, filters, runs beside each other.

An outsider begins with `neurons.py`::

    neurons.py          the best neuron of every stage, and what it has to beat
    labelled_images.py  the test images: halves, groups, what numbers rest on
    single_neurons.py   the paper's test of single neurons
    ranks.py            who does which pieces of the work, and what came of all of them
    fewer_candidates.py what choosing among fewer neurons would reach
    close_look.py       one neuron with one threshold: AUC, sources, bootstrap
    baselines.py        linear filters, and the best that is linear
    training_images.py  training images drawn and read
    comparison.py       the table of neurons and baselines, and its verdicts
    concepts.py         Table 1: the best neurons of several concepts beside what they have to beat
    rivals.py           Table 2: autoencoders and k-means, judged alike
    without_faces.py    the control whose training images show no faces
    paper.py            the paper's figures
    rates.py            images a second, beside what the kernels can do
    seeds.py            several runs in one table
    results.py          results in a run folder
    record.py           what every experiment leaves: tables, figures, texts, values
    made_from.py        fingerprints of what results were made from
    scan.py             a neuron at every place and several scales of a picture
    scan_results.py     the heat maps and tables of a scan
    probing.py          what chosen neurons answer to a test set
    histograms.py       responses, the concept against the rest
    stimuli.py          images of highest response, their mean, numerical optima
    optimum.py          what a neuron would like best: numerical optima, many at once
    invariance.py       a neuron's response against shift, scale, rotation and covering
    turning_heads.py    heads that turn, rendered and scanned
    invariance_results.py  tables, files and figure of both
    selectivity_map.py  where selective neurons are, and how many chance would give
    probes.py           what labels can tell from every stage: where a concept is lost
    film.py             responses to a film, frame by frame
    sensitivity.py      accuracy against receptive field and number of maps
    classification.py   how well a classifier does on the final half
    class_figures.py    how it learnt, what it confuses, how far to trust it
    filters.py          is a filter oriented, is it localised
    categories.py       fine-tuned runs and their controls in one table
    category_results.py its tables, JSON and curve
    predictions.py      what a classifier says about pictures
    convergence.py      how runs learn, at equal work and at equal time
    figures.py          the pictures of a run
    report/             a run as one page, with an atlas of its neurons
    replica_figures.py  how a run with parameter servers went
"""
