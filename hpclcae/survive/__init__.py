"""A job that survives its failures: every server and every replica is a world of its own.

No MPI stands between worlds, so none hangs or crashes when a peer dies: they talk over sockets
(notes/failures.md). An outsider begins with `job.py`::

    job.py         a job: a supervisor, and another where a shard was lost
    supervisor.py  starts worlds, notices who dies or hangs, conducts barriers and checkpoints
    servers.py     the server processes, and which of them hold what shard
    membership.py  seats, lives, and when silence means death
    nodes.py       where worlds run: this machine, a SLURM allocation, named hosts
    processes.py   the processes of one world, started and ended together
    part.py        what a process is told about itself
    host.py        a server process: shards that it holds or has a copy of
    held.py        one shard and its copy: the same changes in the same order
    replica.py     a rank of a replica: it joins, trains, reports
    connection.py  SocketConnection, SocketControl: what the training loop talks to
    link.py        the thread behind them: what is not acknowledged is kept
    loop.py        one loop over the sockets of a process
    wire.py        frames over a socket
    commit.py      a checkpoint that no replica is left to commit
    history.py     what happened, read from the log
    tool.py        asking a job that runs
    chaos.py       failures on purpose, and what must hold afterwards
"""
