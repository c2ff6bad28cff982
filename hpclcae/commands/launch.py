"""The command ``hpclcae launch``: train, or finetune, on as many ranks as the configuration wants.

It finds mpiexec, prints the line and runs it, on this machine. In place of typing the line yourself
you get the number of ranks, what Open MPI has to be told, and signals: USR1, TERM and Ctrl-C that
come to this command are passed on to every rank (mpiexec itself would kill them at TERM). On a
cluster use slurm/train.sbatch.

When a rank dies MPI ends the job at once. This command names the rank and starts the job again from
its last checkpoint, at most train.restarts times (cluster/restarts.py).
"""
import argparse
import os
import platform
import shlex
import sys

from hpclcae import config as configuration
from hpclcae.cluster import restarts
from hpclcae.cluster.mpiexec import Ended, find_mpiexec, run_job, settings_of
from hpclcae.cluster.plan import USABLE, job_bytes
from hpclcae.cluster.ranks import MOST_RANKS, grid_for, ranks_for
from hpclcae.commands import finetune, train
from hpclcae.commands.arguments import whole
from hpclcae.config import Config
from hpclcae.parameter_server.roles import roles
from hpclcae.utils.cores import cores, memory


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


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code is that of the last job."""
    changes = train.changes(args)
    config = (finetune.supervised(args.on, args.configuration, changes) if args.on
              else configuration.load(args.configuration, changes))
    ranks = _fitting_ranks(config) if args.ranks is None else args.ranks
    grid_for(config, ranks)  # refuses what would not start
    if (needed := job_bytes(config, ranks)) > USABLE * memory():
        print(f"hpclcae launch: the job needs about {needed / 1e9:.3g} GB, and there are "
              f"{memory() / 1e9:.3g} GB: the system may end it (a smaller train.batch needs less)",
              file=sys.stderr, flush=True)
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
        ended = run_job(command, program, settings, ranks)
        if ended.code == 0 or ended.asked:
            return ended.code
        verdict = restarts.judge(args.out, job, _what(config, ranks, ended), config.train.restarts)
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


def _fitting_ranks(config: Config) -> int:
    """As many processes as the cores are for, fewer where memory does not hold so many."""
    for count in range(cores(), 1, -1):
        ranks = ranks_for(config, count)
        if job_bytes(config, ranks) <= USABLE * memory():
            return ranks
    return ranks_for(config, 1)
