"""The command ``hpclcae launch``: train, or finetune, on as many ranks as the configuration wants.

It finds mpiexec, prints the line and runs it, on this machine. In place of typing the line yourself
you get the number of ranks, what Open MPI has to be told, and signals: USR1, TERM and Ctrl-C that
come to this command are passed on to every rank (mpiexec itself would kill them at TERM). On a
cluster use slurm/train.sbatch.

When a rank dies MPI ends the job at once. This command names the rank and starts the job again from
its last checkpoint, at most train.restarts times (cluster/restarts.py).
"""
import argparse
import dataclasses
import os
import platform
import shlex
import sys

from hpclcae import checkpoint, config as configuration
from hpclcae.cluster import restarts
from hpclcae.cluster.memory import USABLE, job_bytes
from hpclcae.cluster.mpiexec import Ended, find_mpiexec, run_job, settings_of
from hpclcae.cluster.ranks import MOST_RANKS, grid_for, ranks_for
from hpclcae.commands import finetune, train
from hpclcae.commands.arguments import positive, real, whole
from hpclcae.commands.train import check_kept
from hpclcae.config import Config
from hpclcae.parameter_server.roles import roles
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.survive.job import check_survival, supervise
from hpclcae.survive.nodes import Nodes, allocated, here, named
from hpclcae.survive.part import SILENCE_SECONDS
from hpclcae.survive.supervisor import Supervisor
from hpclcae.training.resume import starting_point
from hpclcae.utils.cores import cores, memory
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replace_text
from hpclcae.utils.lock import locked
from hpclcae.utils.signals import requests


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    train.configure(parser)
    parser.add_argument("--on", metavar="CHECKPOINT",
                        help="the configuration says how a classifier is trained on this network: "
                        "start hpclcae finetune in place of hpclcae train")
    parser.add_argument("--ranks", type=whole(1, MOST_RANKS), metavar="N",
                        help="processes (default: what the configuration asks for, on the cores "
                        "and in the memory of this machine or container)")
    parser.add_argument("--dry-run", action="store_true", help="print the line only")
    parser.add_argument("--survive", action="store_true",
                        help="servers and replicas are worlds of their own, and one that dies "
                        "begins again (notes/failures.md); in a SLURM job of several nodes they "
                        "are started all over these")
    parser.add_argument("--hosts", metavar="NAME[:N],...",
                        help="--survive: start them on these hosts, with cores for N ranks each "
                        "(default: as many as here), by MPICH's or Intel MPI's mpiexec and ssh; "
                        "the files are the same on all")
    parser.add_argument("--silence", type=real(1, 1e6), metavar="SECONDS",
                        default=SILENCE_SECONDS, help="--survive: a process that has not heard the "
                        "supervisor's host for so long ends by itself (default %(default)g)")
    parser.add_argument("--least", type=positive, metavar="N", default=1,
                        help="--survive: replicas without which training ends with a checkpoint")
    parser.add_argument("--start", type=positive, metavar="N", dest="first",
                        help="--survive: replicas to begin with (default: all); others may join")
    parser.add_argument("--deviations", type=real(1, 1e6), metavar="K", default=20.0,
                        help="--survive: a replica is taken for dead when a step takes K standard "
                        "deviations longer than the median (default 20), and longer than beginning "
                        "again would")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code is that of the last job."""
    changes = train.changes(args)
    config = (finetune.supervised(args.on, args.configuration, changes) if args.on
              else configuration.load(args.configuration, changes))
    if args.hosts and not args.survive:
        raise InputError(f"--hosts {args.hosts} goes with --survive; without it, mpiexec or "
                         "slurm/train.sbatch start hpclcae train on several hosts")
    nodes = named(args.hosts) if args.hosts else args.survive and allocated() or here()
    if args.ranks:
        ranks = args.ranks
    else:
        ranks = _fitting_ranks(config) if nodes.is_here else ranks_for(config, nodes.slots)
    grid_for(config, ranks)  # refuses what would not start
    if nodes.is_here and (needed := job_bytes(config, ranks)) > USABLE * memory():
        print(f"hpclcae launch: the job needs about {needed / 1e9:.3g} GB, and there are "
              f"{memory() / 1e9:.3g} GB: the system may end it (a smaller train.batch needs less)",
              file=sys.stderr, flush=True)
    if args.survive:
        if args.on:
            raise InputError(f"--survive with --on {args.on}: a classifier is trained without it; "
                             "leave --survive away")
        return survive(args, config, str(grid_for(config, ranks)), nodes)
    words = ["finetune", args.on] if args.on else ["train"]
    mpiexec = find_mpiexec() if ranks > 1 else ""
    settings = settings_of(mpiexec) if ranks > 1 else {}
    job = f"{platform.node()} {os.getpid()}"
    while True:
        program = [sys.executable, "-m", "hpclcae", *words, *train.train_words(args)]
        command = [mpiexec, "-n", str(ranks), *program] if ranks > 1 else program
        print(shlex.join([*(f"{name}={value}" for name, value in settings.items()), *command]),
              flush=True)
        if args.dry_run:
            return 0
        restarts.forget(args.out)
        ended = run_job(command, program, settings | {restarts.WATCHED: "1"}, ranks)
        if ended.code == 0 or ended.asked:
            return ended.code
        verdict = restarts.judge(args.out, job, _what(config, ranks, ended), config.train.restarts)
        if not verdict.refused:
            print(f"hpclcae launch: {verdict.text}", file=sys.stderr, flush=True)
        if not verdict.again:
            return ended.code
        args.resume = True


def _what(config: Config, ranks: int, ended: Ended) -> str:
    """What has ended a job, in words that name the rank."""
    code = f"exit code {ended.code}"
    if ended.first is None:
        return f"the job failed ({code})"
    rank, process = ended.first
    parallel = config.parallel
    everyone = roles([""] * ranks, parallel.servers, parallel.replicas,
                     (ranks - parallel.servers) // parallel.replicas)
    return f"rank {rank} ({everyone[rank]}, process {process}) failed first ({code})"


def survive(args: argparse.Namespace, config: Config, grid: str, nodes: Nodes) -> int:
    """Run the job as worlds of their own, on these nodes.

    Raises
    ------
    InputError
        The configuration cannot survive, or the job cannot go on.
    """
    config = dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, grid=grid))
    with restarts.last_words(args.out):
        check_survival(config)
        check_kept(args)
    with locked(args.out), requests() as asked:
        with restarts.last_words(args.out):
            starting_point(config, args.out, args.resume, SerialCommunicator())
        replace_text(args.out / "configuration.toml", configuration.dumps(config))
        program = [sys.executable, "-m", "hpclcae", "train",
                   str(args.out / "configuration.toml"), "--out", str(args.out)]

        def make() -> Supervisor:
            checkpoint.clean(args.out)
            return Supervisor(config, args.out, nodes, program, Grid.parse(grid).size, asked,
                              args.deviations, args.least, args.first, args.stop_at, args.silence)
        why = supervise(make, asked)
    if why:
        raise InputError(f"{why}: the last checkpoint is saved; go on with hpclcae launch "
                         f"--survive {shlex.quote(str(args.out / 'configuration.toml'))} --out "
                         f"{shlex.quote(str(args.out))} --resume, with fewer --replicas or more "
                         "machines")
    return 0


def _fitting_ranks(config: Config) -> int:
    """As many processes as the cores are for, fewer where memory does not hold so many."""
    for count in range(cores(), 1, -1):
        ranks = ranks_for(config, count)
        if job_bytes(config, ranks) <= USABLE * memory():
            return ranks
    return ranks_for(config, 1)
