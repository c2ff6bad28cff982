"""The command ``hpclcae check``: is this machine ready for a run?

A job calls it before it trains, once on its first node (`--facts` prints what must be the same
everywhere) and then on every node at once (`--like` compares). It starts no MPI and waits for
nobody, so it says what is wrong in a second where MPI would hang.
"""
import argparse
from pathlib import Path

from hpclcae import config as configuration
from hpclcae.cluster import node
from hpclcae.cluster.ranks import MOST_RANKS, grid_for
from hpclcae.commands.arguments import whole
from hpclcae.data.dataset import Dataset
from hpclcae.mpi.library import library
from hpclcae.utils.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", help="TOML file of the run")
    parser.add_argument("--out", type=Path, metavar="RUN",
                        help="run folder: it must be there, and take files")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, as for hpclcae train")
    parser.add_argument("--ranks", type=whole(1, MOST_RANKS), metavar="N",
                        help="ranks of the job: the configuration must fit them")
    parser.add_argument("--facts", action="store_true",
                        help="print Python, libraries and MPI, for --like")
    parser.add_argument("--like", metavar="FACTS",
                        help="what --facts printed on another machine: it must be the same")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    found = node.facts(_mpi(args))
    if args.like is not None:
        node.compare(found, args.like)
    config = configuration.load(args.configuration, args.changes)
    if args.ranks is not None:
        grid_for(config, args.ranks)
    Dataset(config.data.train).close()
    if args.out is not None:
        node.check_folder(args.out)
    if args.facts:
        print(f"{node.FACTS}{'; '.join(found)}")
    return 0


def _mpi(args: argparse.Namespace) -> str:
    """The MPI library; one rank does without, and then so do the others' nodes."""
    try:
        return library()
    except InputError:
        if args.ranks != 1 and f"MPI {node.NO_MPI}" not in (args.like or ""):
            raise
        return node.NO_MPI
