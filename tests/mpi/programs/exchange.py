"""On every rank: exchange every array of a network and save the results; started by ../test_halo.py.

    exchange.py CONFIGURATION GRID DTYPE FOLDER
"""
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hpclcae import config as configuration
from hpclcae.mpi.communicator import MpiMessenger
from hpclcae.partition.cost import choose_grid
from tests.support.blocks import exchange_everything

config = configuration.load(sys.argv[1])
messenger = MpiMessenger(MPI.COMM_WORLD)
grid = choose_grid(config, messenger.size, sys.argv[2])
results = exchange_everything(config, grid, messenger, np.dtype(sys.argv[3]).type)
messenger.close()
np.savez(Path(sys.argv[4]) / f"{messenger.rank}.npz", **results)
