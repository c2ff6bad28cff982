"""Your folders, archives and films as one dataset (``hpclcae data ingest``).

An outsider begins with `build.py`::

    build.py       from paths to a dataset, by several processes; again, from a manifest
    settings.py    how images are made, and the count of what happened
    walk.py        the pictures and films in folders and archives, one by one
    squares.py     a file to square images
    film.py        frames of a film
    units.py       what one process reads in one go, kept in a file
    choose.py      which images are stored
    labels.py      labels from folders
    duplicates.py  images that were seen before, also recompressed or resized
    ledger.py      which images are stored and where their pixels are, in a file
    store.py       writes the dataset, or its shards and their index
    manifest.py    what a dataset was made from, image by image
"""
