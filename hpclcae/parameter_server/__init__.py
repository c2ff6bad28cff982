"""Parameters on servers, without MPI: chunks, the protocol, both its sides (notes/rma-protocol.md).

An outsider begins with `connection.py`::

    connection.py  ServerConnection: the whole protocol between a worker and the servers
    roles.py       which rank is a server, which one a block of a replica
    chunks.py      Chunk, Shards: pieces of about 1 MB, and the server of each
    store.py       Store: what a server knows and decides: versions, updates, who waits for whom
    client.py      ParameterClient: what a worker does: fetch, collect gradients, push
    header.py      the 64 bytes before a message, mail or frame
    mailbox.py     Outbox, Inbox, SequenceLock: one-sided updates in memory that both sides reach
    barrier.py     who still runs, and who pauses until all do
    local.py       LocalServers, LocalConnection: servers in the same process
"""
