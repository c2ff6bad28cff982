"""Your folders, archives and films as one dataset (``hpclcae data ingest``).

An outsider begins with `build.py`::

    build.py       from paths to a dataset
    walk.py        the pictures and films in folders and archives, one by one
    labels.py      labels from folders
    label_file.py  labels from a file of names and labels
    film.py        frames of a film
    duplicates.py  images that were seen before, also recompressed or resized
"""
