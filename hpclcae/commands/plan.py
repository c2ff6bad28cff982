"""The command ``hpclcae plan``: a proposal for a cluster, and the line to submit it."""
import argparse

from hpclcae import config as configuration
from hpclcae.cluster.plan import choose, describe, sbatch_line
from hpclcae.commands.arguments import positive, real, whole
from hpclcae.utils.cores import cores, memory
from hpclcae.utils.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", help="TOML file, for instance run/paper.toml")
    parser.add_argument("--nodes", type=positive, default=1, metavar="N",
                        help="nodes of the job (default 1)")
    parser.add_argument("--cores", type=positive, default=cores(), metavar="C",
                        help="cores of each node (default: of this machine or container, "
                        "%(default)s)")
    parser.add_argument("--memory", type=real(0, 1e9, above=True), metavar="GB",
                        default=round(memory() / 1e9, 1),
                        help="memory of each node (default: of this machine or container, "
                        "%(default)s)")
    parser.add_argument("--replicas", type=positive, metavar="R",
                        help="copies of the network (default: chosen)")
    parser.add_argument("--servers", type=whole(0), metavar="S",
                        help="parameter servers (default: chosen; one replica: 0)")
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
    plan = choose(config, args.nodes, args.cores, args.memory * 1e9, args.replicas, args.servers)
    print(f"{args.configuration} on {args.nodes} nodes of {args.cores} cores and {args.memory:g} "
          "GB\n")
    print(describe(plan))
    print("\n" + sbatch_line(plan, args.configuration, args.out, args.changes))
    return 0
