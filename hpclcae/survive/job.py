"""A surviving job: one supervisor, and another where a shard was lost; what cannot survive."""
import signal
from collections.abc import Callable

from hpclcae.config import Config
from hpclcae.survive.membership import IN_VAIN
from hpclcae.survive.servers import Restart
from hpclcae.survive.supervisor import Supervisor
from hpclcae.utils.errors import InputError
from hpclcae.utils.signals import Requests


def supervise(make: Callable[[], Supervisor], asked: Requests) -> str:
    """Run a job; begin again from the last checkpoint where a shard is lost.

    Returns
    -------
    str : why it ended before its last step; "" if it did not.

    Raises
    ------
    InputError
        It cannot go on.
    """
    signal.signal(signal.SIGINT, asked.note)
    in_vain, before = 0, ""
    while True:
        supervisor = make()
        started_from = str(supervisor.start)
        in_vain = in_vain + 1 if started_from == before else 0
        before = started_from
        if in_vain >= IN_VAIN:
            raise InputError(f"servers died {IN_VAIN} times without a checkpoint between: see what "
                             "they said; --resume goes on from the last one, and parallel.copies = "
                             "1 keeps a copy of every chunk")
        try:
            return supervisor.work()
        except Restart:
            continue


def check_survival(config: Config) -> None:
    """Refuse a configuration whose replicas cannot come and go.

    Raises
    ------
    InputError
        Names the setting and the remedy.
    """
    parallel = config.parallel
    if not parallel.servers:
        raise InputError("parallel.servers = 0: what survives a replica are the servers; set it to "
                         "1 or more (--servers)")
    if parallel.consistency == "synchronous":
        raise InputError("parallel.consistency = 'synchronous': every update waits for all "
                         "replicas, so none may die; use 'asynchronous' or 'bounded'")
    if parallel.outer_rate:
        raise InputError(f"parallel.outer_rate = {parallel.outer_rate:g}: a round of the outer "
                         "optimizer waits for replicas, so none may die; use plain pushes (0), or "
                         "launch without --survive, which starts again from the last checkpoint")
    if config.train.checkpoint_every == "auto":
        raise InputError("train.checkpoint_every = 'auto': here who may die does not take the "
                         "checkpoints, so there is nothing to measure; give a number of steps")
    if parallel.copies and parallel.servers < 2:
        raise InputError(f"parallel.copies = {parallel.copies}: with parallel.servers = "
                         f"{parallel.servers} there is no other server for the copy; use 2 or "
                         "more, or no copies")
