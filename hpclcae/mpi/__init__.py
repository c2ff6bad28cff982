"""All that imports mpi4py: what the chapters above need of MPI (notes/rma-protocol.md).

An outsider begins with `job.py`::

    runtime.py       one program on all ranks; one that fails ends the job
    job.py           run_job: from ranks to servers and workers, and back to one report
    communicator.py  MpiCommunicator: between the blocks of a replica
    control.py       MpiControlChannel: from the leader to the other replicas
    server.py        Server: the loop of a parameter server
    answers.py       Answers: chunks on their way to workers by messages
    messages.py      MessageConnection: gradients and requests as messages
    memory.py        ServerMemory: a server's memory, as it and its workers reach it; Mailroom
    access.py        SharedAccess, RemoteAccess: a worker's two ways to it
    mailbox.py       MailboxConnection: workers write gradients into that memory, and read chunks
    self_test.py     whether that works here, tried out before each job
    raw_window.py    Rput and Rget alone, for comparison
    waiting.py       waiting with naps, spinning, or as long as a stream flows
    library.py       the MPI library: which one there is, and starting it
    shared_memory.py /dev/shm: enough of it, and nothing left behind
"""
