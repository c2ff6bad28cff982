"""On every rank: what a communicator promises; prints one line a rank.

Started by ../test_halo.py.
"""
import sys

import numpy as np
from mpi4py import MPI

from hpclcae.mpi.communicator import MpiCommunicator

world = MPI.COMM_WORLD

# A communicator that is closed gives everything back: MPI libraries have about 2,000 communicators.
for _ in range(3000):
    MpiCommunicator(world).close()

# Messages of several megabytes, all ranks sending to all in another order, twice with the same
# buffers.
communicator = MpiCommunicator(world)
others = [(communicator.rank + i) % communicator.size for i in range(1, communicator.size)]
sends = [(other, np.empty(700_000)) for other in others]
receives = [(other, np.empty(700_000)) for other in sorted(others)]
channel = communicator.channel(3, sends, receives)
for turn in range(2):
    for other, buffer in sends:
        buffer[:] = 100 * turn + 10 * communicator.rank + other
    channel.start()
    channel.wait()
    for other, buffer in receives:
        assert (buffer == 100 * turn + 10 * other + communicator.rank).all()
channel.close()

# Other people's messages on the communicator that was passed are not taken.
peer = communicator.rank ^ 1
mine, other = np.array([communicator.rank]), np.array([-1])
if peer < communicator.size:
    stray = world.isend("not for the communicator", peer, 5)
    channel = communicator.channel(5, [(peer, mine)], [(peer, other)])
    channel.start()
    channel.wait()
    assert other == peer
    assert world.recv(source=peer, tag=5) == "not for the communicator"
    stray.wait()
    channel.close()

total = communicator.allreduce_sum([[0.1, communicator.rank], [1, 2]])
assert communicator.allreduce_sum(1).shape == ()
# In place and in its own dtype: the same bits on all ranks, in the order of ranks, of any size.
for size in (0, 1, 3, 1_000_003):
    parts = [np.random.default_rng([rank, size]).standard_normal(size, np.float32)
             for rank in range(communicator.size)]
    array = parts[communicator.rank].copy()
    communicator.sum_in_place(array)
    expected = parts[0]
    for part in parts[1:]:
        expected += part
    assert np.array_equal(array, expected)
# at once: ranks write side by side
sys.stdout.write(" ".join(["sums", *map(str, total.ravel().tolist())]) + "\n")
communicator.close()
