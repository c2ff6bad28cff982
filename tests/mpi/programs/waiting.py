"""Two ranks: the second answers a second late; the first prints the processor time that its waiting took."""
import time

import numpy as np
from mpi4py import MPI

from hpclcae.mpi.communicator import MpiMessenger

messenger = MpiMessenger(MPI.COMM_WORLD)
mine, other = np.full(4, messenger.rank), np.empty(4, int)
channel = messenger.channel(0, [(1 - messenger.rank, mine)], [(1 - messenger.rank, other)])
messenger.allreduce_sum(0)
before = time.process_time()
if messenger.rank == 1:
    time.sleep(1)
channel.start()
channel.wait()
after_channel = time.process_time()
if messenger.rank == 1:
    time.sleep(1)
messenger.allreduce_sum(1)
if messenger.rank == 0:
    print(after_channel - before, time.process_time() - after_channel, *other, flush=True)
channel.close()
messenger.close()
