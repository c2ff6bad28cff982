"""On every rank: what a messenger promises; prints one line a rank. Started by ../test_halo.py."""
import sys

import numpy as np
from mpi4py import MPI

from hpclcae.mpi.communicator import MpiMessenger

world = MPI.COMM_WORLD

# A messenger that is closed gives everything back: MPI libraries have about 2,000 communicators.
for _ in range(3000):
    MpiMessenger(world).close()

# Messages of several megabytes, all ranks sending to all in another order, twice with the same buffers.
messenger = MpiMessenger(world)
others = [(messenger.rank + i) % messenger.size for i in range(1, messenger.size)]
sends = [(other, np.empty(700_000)) for other in others]
receives = [(other, np.empty(700_000)) for other in sorted(others)]
channel = messenger.channel(3, sends, receives)
for turn in range(2):
    for other, buffer in sends:
        buffer[:] = 100 * turn + 10 * messenger.rank + other
    channel.start()
    channel.wait()
    for other, buffer in receives:
        assert (buffer == 100 * turn + 10 * other + messenger.rank).all()
channel.close()

# Other people's messages on the communicator that was passed are not taken.
peer = messenger.rank ^ 1
mine, other = np.array([messenger.rank]), np.array([-1])
if peer < messenger.size:
    stray = world.isend("not for the messenger", peer, 5)
    channel = messenger.channel(5, [(peer, mine)], [(peer, other)])
    channel.start()
    channel.wait()
    assert other == peer
    assert world.recv(source=peer, tag=5) == "not for the messenger"
    stray.wait()
    channel.close()

total = messenger.allreduce_sum([[0.1, messenger.rank], [1, 2]])
assert messenger.allreduce_sum(1).shape == ()
sys.stdout.write(" ".join(["sums", *map(str, total.ravel().tolist())]) + "\n")  # at once: ranks write side by side
messenger.close()
