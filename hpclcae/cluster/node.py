"""The command ``hpclcae check``: is this machine ready for a run?

A job calls it before it trains, once on its first node (`--facts` prints what must be the same
everywhere) and then on every node at once (`--like` compares). It starts no MPI and waits for
nobody, so it says what is wrong in a second where MPI would hang.
"""
import argparse
import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path

from hpclcae import config as configuration
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.parameter_server.roles import blocks_of
from hpclcae.partition.blocks import Grid
from hpclcae.partition.cost import choose_grid
from hpclcae.utils.errors import InputError

LIBRARIES = ("hpclcae", "numpy", "scipy", "h5py", "mpi4py")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", help="TOML file of the run")
    parser.add_argument("--out", type=Path, metavar="RUN",
                        help="run folder: it must be there, and take files")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, as for hpclcae train")
    parser.add_argument("--ranks", type=int, metavar="N",
                        help="ranks of the job: the configuration must fit them")
    parser.add_argument("--facts", action="store_true",
                        help="print Python, libraries and MPI, for --like")
    parser.add_argument("--like", metavar="FACTS",
                        help="what --facts printed on another machine: it must be the same")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    found = facts()
    if args.like is not None:
        compare(found, args.like)
    config = configuration.load(args.configuration, args.changes)
    if args.ranks is not None:
        check_ranks(config, args.ranks)
    Dataset(config.data.train).close()
    if args.out is not None:
        check_folder(args.out)
    if args.facts:
        print("; ".join(found))
    return 0


def facts() -> list[str]:
    """Python, libraries and MPI of this machine.

    Raises
    ------
    InputError
        No MPI library can be loaded.
    """
    try:
        from hpclcae.mpi.library import library
        mpi = library()
    except (ImportError, RuntimeError) as error:
        raise InputError(f"no MPI library can be loaded ({error}): load the cluster's MPI, or "
                         "pip install 'hpclcae[mpich]'") from error
    return [f"Python {platform.python_version()}",
            *(f"{name} {metadata.version(name)}" for name in LIBRARIES), f"MPI {mpi}"]


def compare(found: list[str], others: str) -> None:
    """Refuse a machine whose software differs.

    Raises
    ------
    InputError
        Names what differs.
    """
    for mine, theirs in zip(found, others.split("; ")):
        if mine != theirs:
            raise InputError(f"{mine} here, {theirs} on the first node: all nodes must have the "
                             "same environment")


def check_ranks(config: Config, ranks: int) -> None:
    """Refuse a number of ranks that the configuration cannot use.

    Raises
    ------
    InputError
        Names the numbers that fit.
    """
    parallel = config.parallel
    fixed = None if parallel.grid == "auto" else Grid.parse(parallel.grid).size
    choose_grid(config, blocks_of(ranks, parallel.servers, parallel.replicas, fixed), parallel.grid)


def check_folder(folder: Path) -> None:
    """Refuse a run folder that is not there or takes no files.

    Raises
    ------
    InputError
        Names the folder.
    """
    if not folder.is_dir():
        raise InputError(f"run folder {folder} is not there: it must be on a file system that all "
                         "nodes share")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f"check-{os.uname().nodename}-"):
            pass
    except OSError as error:
        raise InputError(f"run folder {folder} cannot be written ({error.strerror}); choose "
                         "another one") from error
