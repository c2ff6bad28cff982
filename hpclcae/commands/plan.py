"""The command ``hpclcae plan``: a proposal for a cluster, and the line to submit it."""
import argparse
from pathlib import Path

from hpclcae import config as configuration
from hpclcae.cluster.levers import alternatives, describe_alternatives, describe_levers
from hpclcae.cluster.machine import DEFAULT, load
from hpclcae.cluster.plan import choose, describe, sbatch_line
from hpclcae.commands.arguments import positive, real, whole
from hpclcae.utils.cores import cores, memory
from hpclcae.utils.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", help="TOML file, for instance run/paper.toml")
    parser.add_argument("--nodes", type=positive, default=1, metavar="N",
                        help="nodes of the job (default 1)")
    parser.add_argument("--cores", type=positive, metavar="C",
                        help="cores of each node (default: those of --machine, or of this machine "
                        f"or container, {cores()})")
    parser.add_argument("--memory", type=real(0, 1e9, above=True), metavar="GB",
                        help="memory of each node (default: that of --machine, or of this machine "
                        f"or container, {memory() / 1e9:.1f})")
    parser.add_argument("--replicas", type=positive, metavar="R",
                        help="copies of the network (default: chosen)")
    parser.add_argument("--servers", type=whole(0), metavar="S",
                        help="parameter servers (default: chosen; one replica: 0)")
    parser.add_argument("--machine", type=Path, metavar="FILE",
                        help="what the nodes can do, measured by hpclcae bench machine (default: a "
                        "guess, 50 GFLOP/s a core)")
    parser.add_argument("--compare", action="store_true",
                        help="a table of 1, 2, 4, ... replicas beside the proposal")
    parser.add_argument("--halve", action="store_true",
                        help="say what would halve the time of a step")
    parser.add_argument("--out", default="runs/NAME", metavar="RUN",
                        help="run folder for the sbatch line")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set parallel.placement=apart")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.servers == 0 and (args.replicas or 1) > 1:
        raise InputError(f"--servers 0 --replicas {args.replicas}: replicas meet at parameter "
                         "servers; leave out --servers, or give 1 or more")
    config = configuration.load(args.configuration, args.changes)
    machine = load(args.machine) if args.machine else DEFAULT
    here = machine if args.machine else machine.resized(cores(), round(memory(), -8))
    each = args.cores or here.cores
    bytes_ = args.memory * 1e9 if args.memory else here.memory
    where = args.nodes, each, bytes_
    plan = choose(config, *where, args.replicas, args.servers, machine)
    print(f"{args.configuration} on {args.nodes} nodes of {each} cores and {bytes_ / 1e9:.3g} "
          "GB\n")
    print(describe(plan))
    if args.compare:
        print(f"\n{describe_alternatives(alternatives(config, *where, machine, args.servers))}")
    if args.halve:
        print(f"\n{describe_levers(plan)}")
    print("\n" + sbatch_line(plan, args.configuration, args.out, args.changes))
    return 0
