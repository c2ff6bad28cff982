"""The command ``hpclcae train``: minibatches in, checkpoints and metrics out."""
import argparse
import contextlib
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpclcae import config as configuration
from hpclcae.cluster.launcher import launched
from hpclcae.cluster.restarts import last_words
from hpclcae.commands.arguments import output, positive, whole
from hpclcae.config import Config
from hpclcae.mpi.runtime import run_on_all_ranks
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.survive import host, replica
from hpclcae.survive.part import Part
from hpclcae.training.resume import starting_point
from hpclcae.training.trainer import Trainer
from hpclcae.training.worker import WorkerContext
from hpclcae.utils.errors import InputError
from hpclcae.utils.lock import locked

if TYPE_CHECKING:
    from hpclcae.mpi.communicator import MpiCommunicator


def configure(parser: argparse.ArgumentParser, example: str = "run/desk.toml") -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", help=f"TOML file, for instance {example}")
    parser.add_argument("--out", required=True, type=output,
                        help="run folder: checkpoints, metrics, configuration")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set train.steps=500 --set "
                        "stages.0.maps=8")
    parser.add_argument("--resume", action="store_true",
                        help="go on from the newest checkpoint in the run folder (from the start "
                        "if there is none)")
    parser.add_argument("--stop-at", type=positive, metavar="STEP",
                        help="end after this step with a checkpoint; the schedule is still that of "
                        "train.steps")
    parser.add_argument("--grid", metavar="ROWSxCOLUMNS",
                        help="blocks of ranks that share the network under mpiexec or srun, for "
                        "instance 2x1; auto (default): the one whose busiest block has the least "
                        "to do")
    parser.add_argument("--servers", type=whole(0), metavar="N",
                        help="ranks that hold the parameters while replicas train "
                        "(parallel.servers)")
    parser.add_argument("--replicas", type=positive, metavar="N",
                        help="copies of the network (parallel.replicas)")


def changes(args: argparse.Namespace) -> list[str]:
    """The settings that the arguments change."""
    short = {"grid": args.grid and f'"{args.grid}"', "servers": args.servers,
             "replicas": args.replicas}
    return args.changes + [f"parallel.{name}={value}" for name, value in short.items()
                           if value is not None]


def train_words(args: argparse.Namespace) -> list[str]:
    """The arguments of hpclcae train again, as words."""
    words = [args.configuration, "--out", str(args.out)]
    for change in args.changes:
        words += ["--set", change]
    words += ["--resume"] if args.resume else []
    for name in ("stop_at", "grid", "servers", "replicas"):
        value = getattr(args, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    return words


def check_kept(args: argparse.Namespace) -> None:
    """See that the run folder does not replace the configuration file by its resolved text.

    Raises
    ------
    InputError
        It would, and the comments would be lost.
    """
    written = args.out / "configuration.toml"
    if not args.resume and written.exists() and written.samefile(args.configuration):
        raise InputError(f"--out {args.out} is the folder of {args.configuration}, which would be "
                         "replaced: choose another (or --resume, if it is a run to go on with)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if part := Part.of_this_process():
        return _take_part(args, part)

    def configured() -> Config:
        check_kept(args)
        return configuration.load(args.configuration, changes(args))
    return train(args, "hpclcae train", configured, ["hpclcae", "launch", *train_words(args)])


def train(args: argparse.Namespace, name: str, configured: Callable[[], Config],
          launch: list[str]) -> int:
    """Train in this process, or as a rank of a job; returns the exit code.

    Parameters
    ----------
    configured : callable
        Gives the configuration; every rank calls it.
    launch : list of str
        The words that start a job, where this is one process and should be several.
    """
    if launched().size > 1:
        def program(world: "MpiCommunicator") -> None:
            with last_words(args.out):
                _train(args, configured(), world)
        return run_on_all_ranks(name, program)
    with last_words(args.out):
        return _train_alone(args, configured(), launch)


def _train_alone(args: argparse.Namespace, config: Config, launch: list[str]) -> int:
    """Train in this process."""
    if config.parallel.servers:
        raise InputError(f"the configuration asks for {config.parallel.servers} parameter "
                         f"servers and {config.parallel.replicas} replicas, and this is one "
                         f"process: start several with {shlex.join(launch)}, or train "
                         "in one with --servers 0 --replicas 1")
    with locked(args.out):
        start = starting_point(config, args.out, args.resume, SerialCommunicator())
        Trainer(config, args.out, start).train(args.stop_at)
    return 0


def _take_part(args: argparse.Namespace, part: Part) -> int:
    """Be a process of a surviving job (hpclcae launch --survive)."""
    config = configuration.load(args.configuration, changes(args))
    if part.kind == "server":
        host.serve(part, config, args.out)
        return 0
    if launched().size > 1:
        return run_on_all_ranks("hpclcae train", lambda world: replica.train(
            part, config, args.out, world))
    replica.train(part, config, args.out, SerialCommunicator())
    return 0


def _train(args: argparse.Namespace, config: Config, world: "MpiCommunicator") -> None:
    """The part of one rank of a job."""
    # The first rank locks the folder; the others wait for it in `starting_point`.
    with locked(args.out) if world.rank == 0 else contextlib.nullcontext():
        start = starting_point(config, args.out, args.resume, world)
        if not config.parallel.servers:
            worker = WorkerContext.unserved(config, world)
            Trainer(config, args.out, start, worker).train(args.stop_at)
            return
        from hpclcae.mpi.job import run_job
        run_job(world, config, args.out, start, lambda worker: Trainer(
            config, args.out, start, worker).train(args.stop_at))
