"""On every rank: exchange every array of a network and save the results (../test_halo.py).

    exchange.py CONFIGURATION GRID DTYPE FOLDER
"""
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hpclcae import config as configuration
from hpclcae.mpi.communicator import MpiCommunicator
from hpclcae.partition.cost import choose_grid
from tests.support.blocks import exchange_everything

config = configuration.load(sys.argv[1])
communicator = MpiCommunicator(MPI.COMM_WORLD)
grid = choose_grid(config, communicator.size, sys.argv[2])
results = exchange_everything(config, grid, communicator, np.dtype(sys.argv[3]).type)
communicator.close()
np.savez(Path(sys.argv[4]) / f"{communicator.rank}.npz", **results)
