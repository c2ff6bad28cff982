"""The command ``hpclcae simulate``: asynchronous training on a cluster, as events.

Times are predicted from a machine description; with ``--learn`` the schedule that comes out carries
the arithmetic of a small network. With ``--days`` a long job goes through failures instead.
"""
import argparse
import dataclasses
import json
import math
from pathlib import Path

from hpclcae import config as configuration
from hpclcae.cluster.machine import DEFAULT, Machine, load
from hpclcae.commands.arguments import output, positive, real, whole
from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.partition.blocks import Grid, check_grid
from hpclcae.simulation import failures
from hpclcae.simulation.arithmetic import Arithmetic
from hpclcae.simulation.cluster import Scenario, Times, simulate
from hpclcae.simulation.figures import draw
from hpclcae.simulation.results import Simulated, as_json, describe, describe_endured
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import check_output, check_picture, is_json, replace_text

WORKERS_A_SERVER = 3  # where nobody says how many servers there are (the paper: 845 for 256)
MOST_SECONDS = 1e9


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", help="TOML file of what the cluster trains, for instance "
                        "run/paper.toml")
    parser.add_argument("--machine", type=Path, metavar="FILE",
                        help="what a node can do, from hpclcae bench machine (default: a guess, 50 "
                        "GFLOP/s a core)")
    parser.add_argument("--replicas", type=whole(1, 10_000), nargs="+", metavar="R",
                        help="numbers of replicas, simulated one after the other (default: that of "
                        "the configuration)")
    parser.add_argument("--grid", default="1x1", metavar="ROWSxCOLUMNS",
                        help="blocks of a replica (default 1x1)")
    parser.add_argument("--servers", type=positive, metavar="S",
                        help="parameter servers (default: that of the configuration, or one for "
                        f"{WORKERS_A_SERVER} workers)")
    parser.add_argument("--per-node", type=positive, metavar="N",
                        help="ranks on a node (default: as many as it has cores)")
    parser.add_argument("--minibatches", type=whole(1, 10 ** 8), default=500, metavar="N",
                        help="of all replicas together (default 500)")
    parser.add_argument("--learn", type=Path, metavar="TOML",
                        help="a small network that learns under the schedule, from drawn images")
    parser.add_argument("--learn-set", action="append", default=[], metavar="KEY=VALUE",
                        help="change one setting of the small network")
    happens = parser.add_argument_group("what happens to machines")
    happens.add_argument("--slow", type=real(0, 1), default=0.0, metavar="SHARE",
                         help="of machines that are slow for ever (default 0)")
    happens.add_argument("--factor", type=real(1, 1e6), default=3.0, metavar="TIMES",
                         help="how many times as long those take (default 3)")
    happens.add_argument("--spread", type=real(0, 10), metavar="SIGMA",
                         help="standard deviation of the logarithm of what a rank's step takes "
                         "(default: the jitter of the machine)")
    happens.add_argument("--mtbf", type=real(0, MOST_SECONDS, above=True), metavar="HOURS",
                         help="between failures of a machine, on average (default: none fails; "
                         "--days: as Li et al. 2014 report)")
    happens.add_argument("--survive", action="store_true",
                         help="the other replicas go on when a machine of one fails")
    happens.add_argument("--recover", type=real(0, MOST_SECONDS), default=60.0, metavar="SECONDS",
                         help="until a lost machine is replaced (default 60)")
    happens.add_argument("--restart", type=real(0, MOST_SECONDS), default=300.0,
                         metavar="SECONDS", help="until a job has begun again (default 300)")
    happens.add_argument("--days", type=real(0, 1e4, above=True), metavar="D",
                         help="a job of so many days through failures, with and without survival; "
                         "steps are not simulated")
    happens.add_argument("--checkpoint", type=real(0, MOST_SECONDS, above=True), default=600.0,
                         metavar="SECONDS", help="--days: between checkpoints (default 600)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of all chance (default 0)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set parallel.push_every=5")
    parser.add_argument("--json", type=output, metavar="FILE", help="write all of it as JSON")
    parser.add_argument("--plot", type=output, metavar="PNG",
                        help="draw curves, staleness and where time goes (extra: figures)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    require("simpy", "simulate", "a simulation")
    if args.plot:
        require("matplotlib", "figures", "drawing")
        check_picture(args.plot, "--plot")
    if args.json:
        check_output(args.json, lambda path: is_json(path, "simulated"), "a simulation")
    config = configuration.load(args.configuration, args.changes)
    network = configuration.load(args.learn, args.learn_set) if args.learn else None
    machine = load(args.machine) if args.machine else DEFAULT
    grid = Grid.parse(args.grid)
    check_grid(config, grid)
    print(f"simulated: {args.configuration} on {machine.name}\n")
    if args.days:
        _long_job(args, config, machine, grid)
        return 0
    if config.train.checkpoint_every == "auto":
        raise InputError("train.checkpoint_every = 'auto': a simulated run measures nothing: give "
                         "a number (--set train.checkpoint_every=200)")
    scenario = Scenario(
        args.minibatches, args.slow, args.factor,
        machine.jitter if args.spread is None else args.spread,
        args.mtbf * failures.HOUR if args.mtbf else math.inf, args.survive, args.recover,
        args.restart, config.train.checkpoint_every, seed=args.seed)
    found = [_simulated(args, _with_parallel(config, replicas, grid, args.servers), network,
                        machine, scenario) for replicas in args.replicas
             or [config.parallel.replicas]]
    print(describe(found, network is not None))
    words = getattr(args, "command_line", "")
    if args.json:
        content = as_json(found, scenario, words, machine.name, str(args.learn or ""))
        replace_text(args.json, json.dumps(content, indent=1) + "\n")
    if args.plot:
        draw(found, args.plot, f"{args.configuration}, {grid}", network is not None)
        print(args.plot)
    return 0


def _with_parallel(config: Config, replicas: int, grid: Grid, servers: int | None) -> Config:
    """The configuration with so many replicas and servers; its combinations are checked again."""
    count = servers or config.parallel.servers or max(1, replicas * grid.size // WORKERS_A_SERVER)
    return configuration.loads(configuration.dumps(config), [
        f"parallel.replicas={replicas}", f"parallel.servers={count}", f"parallel.grid={grid}"])


def _simulated(args: argparse.Namespace, config: Config, network: Config | None, machine: Machine,
               scenario: Scenario) -> Simulated:
    parallel, grid = config.parallel, Grid.parse(config.parallel.grid)
    if network:  # its schedule comes to its end when the minibatches are made
        steps = max(1, scenario.minibatches // parallel.replicas)
        network = dataclasses.replace(network, train=dataclasses.replace(
            network.train, steps=steps))
    per_node = args.per_node or machine.cores
    if (parallel.servers + parallel.replicas * grid.size <= per_node
            and parallel.transport != "messages"):
        # where memory is shared a fetch is a copy that is made when its step begins
        config = dataclasses.replace(config, parallel=dataclasses.replace(parallel, overlap=False))
    times = Times.predicted(Layout(config, grid), machine, per_node)
    return Simulated(parallel.replicas, str(grid), parallel.servers, config.train.batch, times,
                     simulate(times, Arithmetic.of(config, network), scenario))


def _long_job(args: argparse.Namespace, config: Config, machine: Machine, grid: Grid) -> None:
    if args.replicas and len(args.replicas) > 1:
        raise InputError("--days takes one number of --replicas")
    config = _with_parallel(config, (args.replicas or [config.parallel.replicas])[0], grid,
                            args.servers)
    per_node, parallel = args.per_node or machine.cores, config.parallel
    rates = {f"{args.mtbf:g} h": args.mtbf} if args.mtbf else {
        f"{100 * share:.1f} % in {hours:,} machine-hours": failures.mean_time(hours, share)
        for hours, share in failures.REPORTED.items()}
    found = []
    for name, mtbf in rates.items():
        for survive in (False, True):
            job = failures.LongJob(
                parallel.replicas, math.ceil(grid.size / per_node),
                math.ceil(parallel.servers / per_node), args.days, mtbf, survive, args.recover,
                args.restart, args.checkpoint, args.seed)
            found.append((name, job, failures.endure(job)))
    job = found[0][1]
    print(f"{args.days:g} days of {parallel.replicas} replicas of {job.machines} machines, "
          f"{job.server_machines} machines of servers\n")
    print(describe_endured(found))
    if args.json:
        replace_text(args.json, json.dumps({
            "simulated": True, "command": getattr(args, "command_line", ""),
            "jobs": [{"rate": name, **dataclasses.asdict(job), **dataclasses.asdict(endured)}
                     for name, job, endured in found]}, indent=1) + "\n")
