"""``hpclcae data ...``: making datasets and looking at them.

An outsider begins with `fetch.py`::

    fetch.py   real images out of packages
    ingest.py  your own pictures and films
    frames.py  composed frames
    info.py    what is in a dataset
    check.py   is a dataset as it was written, and how to mend it
"""
