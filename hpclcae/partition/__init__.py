"""How one network is cut into a grid of blocks, and how blocks exchange halos (notes/partition.md).

An outsider begins with `blocks.py`::

    blocks.py        who owns and who needs what, as data: Grid, ExchangePlan, BlockPlan
    cost.py          what a grid sends and computes, and so which grid is best
    communicator.py  how blocks talk to each other; SerialCommunicator, for one block
    threads.py       all blocks of a grid as threads of one process, for tests without MPI
    halo.py          Exchange: fill (the ghost update) and fold (its adjoint) of one array
    picture.py       a picture of a partition
"""
