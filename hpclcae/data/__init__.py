"""Images: where they come from, the HDF5 file that holds them, which ones a step sees.

An outsider begins with `dataset.py`::

    sources/        real images out of ordinary packages
    ingest/         your own folders, archives and films
    frames/         frames composed from what was fetched
    tasks/          labelled images of many classes, out of what was fetched
    dataset.py      Dataset: one HDF5 file with labels, groups and checksums
    shards.py       a dataset in several files
    check.py        is a dataset as it was written, and what to do if not
    writer.py       DatasetWriter: what writes it
    compression.py  how pixels are compressed, and whether they can be read here
    dealing.py      Stream, Deal: how an epoch is dealt to replicas, also when their number changes
    minibatches.py  MinibatchStream: the images of a step, a function of (seed, deal, replica, step)
    decode.py       one picture of any common format to bytes
    formats.py      what a file is by its bytes, whatever it is called
    catalogue.py    what was fetched; the split by person and photograph
    faces.py        where OpenCV sees faces
    fitting.py      the training images that conditioners are fitted on
    framing.py      how large faces are in composed frames and where they lie, in words
    classes.py      the images of many classes: to train on, to stop by, to test on
    halves.py       which half is developed on, and which one is for the final figures
    summary.py      what is in a dataset, in words and on a contact sheet
"""
