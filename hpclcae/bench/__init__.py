"""Benchmarks (``hpclcae bench ...``): they print a table and append JSON rows to a file.

An outsider begins with `common.py`::

    common.py        rows, paired timing, the sgemm reference, the machine
    cases.py         what is timed: one stage on a patch, the whole network
    kernels.py       rates of kernels, of a stage, of a training step
    roofline.py      rate against batch
    side_by_side.py  several processes at once
    peers.py         the same step in PyTorch and JAX
    peers_torch.py   PyTorch's versions
    peers_jax.py     JAX's versions
    memory.py        peak memory of a training step
    classifier.py    a classifier's step as classes grow
    machine.py       what a machine can do, for plans and simulations
    plan.py          predicted steps beside measured ones
    halo.py          what blocks exchange, and how long it takes
    scaling.py       how much faster several ranks are
    goodput.py       training while ranks are killed, in two ways
    ingest.py        pictures to a dataset, beside Pillow alone
    checkpoint.py    bandwidth of checkpoints, stall of training
    data.py          what reading images costs a step, shuffled reads against plain ones
    server.py        what parameter servers cost
    raw_messages.py  the same messages by MPI alone
    slow_replica.py  what one slow replica costs the others
"""
