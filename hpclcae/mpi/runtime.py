"""Running one program on every rank of an MPI job, and ending all of them when one fails."""
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpclcae.cluster.launcher import launched, on_this_node
from hpclcae.mpi import library
from hpclcae.utils.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpclcae.mpi.communicator import MpiCommunicator

#: What is wrong with a configuration is wrong on every rank. The first one says so and ends the
#: job; the others give it this long before they speak for themselves.
PATIENCE_SECONDS = 4.0
#: Between a message and the end of the job: the launcher kills all ranks at once, and what it has
#: not read by then from their pipes is lost (seen with MPICH's mpiexec).
LINGER_SECONDS = 1.0


def run_on_all_ranks(name: str, program: Callable[["MpiCommunicator"], None]) -> int:
    """Start MPI and run program(communicator) on each rank of the world; returns the exit code.

    An exception on any rank ends the whole job with a non-zero exit code and one message, with a
    traceback only if it is a defect of the program.
    """
    try:
        world = library.start()
    except InputError as error:
        return _refuse(name, error)
    from hpclcae.mpi.communicator import MpiCommunicator
    communicator = MpiCommunicator(world)
    try:
        program(communicator)
    except (InputError, OSError, MemoryError) as error:
        _end(world, f"{name}: " + str(error).replace("\n", " "))
    except KeyboardInterrupt:
        _end(world, f"{name}: interrupted", 130)
    except Exception:  # a defect: the other ranks must not wait for this one
        _end(world, traceback.format_exc())
    communicator.close()
    return 0


def _refuse(name: str, error: InputError) -> int:
    """Say why there is no job: the first process of each node does, as nodes may differ."""
    size, rank, _ = launched()
    if rank:
        time.sleep(PATIENCE_SECONDS)  # a launcher kills the first one, too, when another one ends
    if on_this_node()[1] == 0:
        of = f"rank {rank} of {size}: " if rank else ""
        print(f"{of}{name}: {error}", file=sys.stderr, flush=True)
    return 1


def _end(world: "MPI.Intracomm", message: str, code: int = 1) -> None:
    if world.rank:
        time.sleep(PATIENCE_SECONDS)
        message = f"rank {world.rank} of {world.size}: {message}"
    print(message, file=sys.stderr, flush=True)
    time.sleep(LINGER_SECONDS)
    world.Abort(code)
