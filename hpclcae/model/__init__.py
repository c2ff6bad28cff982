"""The network: its layers, its stages, its objective, and what changes its parameters.

An outsider begins with `network.py`::

    layers/            the sublayers of a stage, each forward beside backward
    parameters.py      ParameterVector: one flat vector with named views
    workspace.py       arrays that live from step to step
    blas.py            which kernels BLAS has, and up to what size it needs no packing
    layout.py          Layout: what (configuration, grid) means, worked out once: shapes, plans
    stage.py           Stage: filtering, pooling, normalisation, and its StageLoss
    network.py         Network: stages in a row, trained jointly, stopped or greedily
    responses.py       Responses: of all stages, to many images with weights that stay as they are
    classifier.py      Classifier: categories told apart on the top stage, and its ClassifierLoss
    conditioner.py     Conditioner: what stands between two stages, fitted and then kept
    conditioner_fit.py how it is fitted, in passes over training images
    preprocess.py      contrast normalisation and whitening of images: Preprocessing, Preprocessor
    autoencoder.py     the sigmoid autoencoders that neurons are compared with
    optimizers.py      SGD, momentum, Adagrad, Adam, row by row
    schedule.py        the learning rate of every step, and which stage it trains
    phases.py          which stages are trained when, and when conditioners are fitted
"""
