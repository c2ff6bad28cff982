"""The command ``hpclcae leave``: a replica leaves a surviving job, which goes on without it."""
import argparse
from pathlib import Path

from hpclcae.commands.arguments import whole
from hpclcae.survive.tool import ask


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of the job")
    parser.add_argument("--replica", metavar="K", type=whole(0), required=True, help="which one")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    number = ask(args.run, kind="leave", replica=args.replica)["replica"]
    print(f"replica {number} leaves after its step")
    return 0
