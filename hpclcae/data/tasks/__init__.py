"""Labelled images of many classes out of fetched packages (``hpclcae data classes``).

An outsider begins with `build.py`::

    build.py        the table of tasks; one of them as a dataset
    digits.py       MNIST and Fashion-MNIST
    photographs.py  parts of photographs, by what these show
    cutouts.py      cut-out objects on photographs, by what kind of thing they are
"""
