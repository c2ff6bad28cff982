"""What can be typed: a module is a command, its path the words; ``configure`` and ``run`` in each.

An outsider begins with `train.py`::

    checkpoint/     hpclcae checkpoint ...
    data/           hpclcae data ...
    experiment/     hpclcae experiment ...
    show.py         the layers of a configuration
    train.py        training, in one process or as one rank of a job
    finetune.py     a classifier on a trained network, then the whole network
    evaluate.py     how well classifiers do on the test half
    predict.py      what a classifier says about pictures
    launch.py       train under mpiexec, on this machine
    join.py         a replica joins a surviving job
    leave.py        a replica leaves it
    chaos.py        failures on purpose, and what must hold afterwards
    replay.py       an asynchronous run again
    plan.py         a layout for a cluster
    simulate.py     asynchronous training on a simulated cluster
    check.py        is this node ready
    status.py       where runs stand
    neurons.py      the best neurons
    figures.py      the pictures of a run
    report.py       a run as one page, with an atlas of its neurons
    convergence.py  runs beside each other
    examination.py  arguments of the commands that examine neurons
    arguments.py    arguments of several commands
"""
