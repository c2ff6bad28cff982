"""``hpclcae checkpoint ...``: looking at checkpoints and changing their form.

An outsider begins with `info.py`::

    list.py     the checkpoints of a run
    info.py     what is in one
    query.py    arithmetic over its arrays
    verify.py   every byte against its checksum
    diff.py     what moved between two
    reshard.py  another number of shards
    export.py   weights for programs that read no HDF5
"""
