"""The command ``hpclcae join``: a replica joins a surviving job that runs."""
import argparse
from pathlib import Path

from hpclcae.commands.arguments import whole
from hpclcae.survive.tool import ask


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of the job")
    parser.add_argument("--replica", metavar="K", type=whole(0),
                        help="which of those that are not there (default: the first)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    print(f"replica {ask(args.run, kind='join', replica=args.replica)['replica']} is on its way")
    return 0
