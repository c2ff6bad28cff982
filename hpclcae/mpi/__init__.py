"""All that imports mpi4py: what the chapters above need of MPI (notes/rma-protocol.md).

An outsider begins with `job.py`::

    runtime.py       one program on all ranks; one that fails ends the job
    job.py           run_job: from ranks to servers and workers, and back to one report
    communicator.py  MpiCommunicator: between the blocks of a replica
    control.py       MpiControlChannel: from the leader to the other replicas
    server.py        Server: the loop of a parameter server
    messages.py      MessageConnection: gradients and requests as messages
    window.py        Window: a server's memory, for one-sided access
    one_sided.py     RmaConnection: workers read and add to that memory
    waiting.py       waiting with naps, spinning, or as long as a stream flows
    library.py       the MPI library: which one there is, and starting it
    shared_memory.py /dev/shm: enough of it, and nothing left behind
"""
