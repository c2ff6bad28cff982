"""Two ranks: the second answers a second late.

The first prints the processor time that its waiting took.
"""
import time

import numpy as np
from mpi4py import MPI

from hpclcae.mpi.communicator import MpiCommunicator

communicator = MpiCommunicator(MPI.COMM_WORLD)
mine, other = np.full(4, communicator.rank), np.empty(4, int)
channel = communicator.channel(0, [(1 - communicator.rank, mine)], [(1 - communicator.rank, other)])
communicator.allreduce_sum(0)
before = time.process_time()
if communicator.rank == 1:
    time.sleep(1)
channel.start()
channel.wait()
after_channel = time.process_time()
if communicator.rank == 1:
    time.sleep(1)
communicator.allreduce_sum(1)
if communicator.rank == 0:
    print(after_channel - before, time.process_time() - after_channel, *other, flush=True)
channel.close()
communicator.close()
