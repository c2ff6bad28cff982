"""From a machine or a cluster to ranks: how many, where, ready or not; without MPI.

An outsider begins with `plan.py`::

    launcher.py    how many processes a launcher started
    ranks.py       how many ranks a job needs, and the grid of its replicas
    mpiexec.py     a job on this machine, with signals passed on
    watch.py       which rank of a job ends first
    interval.py    how often a checkpoint pays
    pace.py        which replicas are slow, and in what
    restarts.py    whether a job that failed is started again
    node.py        is this machine ready, and like the others
    machine.py     what a machine can do, as a TOML file
    memory.py      what ranks hold
    prediction.py  how long a step takes, and what it moves
    plan.py        which grid, replicas and servers for given nodes
    levers.py      other layouts, and what would halve a step
    status.py      where runs stand, from their folders
"""
