"""Work that is spread over processes of this machine, with its results in order.

The processes end with the one that started them, however that ends, and give back what it holds:
its locks above all.
"""
import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
# What a process inherits is left alone: a film that Python's collector of garbage closes there
# would wait for FFmpeg's threads, which were not forked. Before the fork, as the first thing that a
# new process does is Python's own (threading), and that may collect.
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)
AHEAD = 3  # tasks under way for each process: memory for their results and arguments is bounded


def in_order(function: Callable[[T], R], tasks: Iterable[T], workers: int,
             died: Callable[[T], R],
             close: tuple[int, ...] = ()) -> Generator[tuple[T, R], None, None]:
    """Yield every task with ``function(task)``, in the order of the tasks.

    Parameters
    ----------
    function : callable
        Of the top level of a module.
    tasks : iterable
        Taken as they are needed.
    workers : int
        Processes; with 1, or for a single task, it happens in this one.
    died : callable
        Called, in this process, with a task whose process may have died of it (a decoder crashed,
        the system was out of memory); what it returns counts as the result.
    close : tuple of int
        Descriptors that the processes shall not keep open.
    """
    remaining = iter(tasks)
    first = list(islice(remaining, 2))
    if workers == 1 or len(first) < 2:
        yield from ((task, function(task)) for task in chain(first, remaining))
        return
    remaining = chain(first, remaining)
    under_way: deque[tuple[T, Future[R]]] = deque()
    while True:
        lost: list[T] = []
        with _pool(workers, close) as pool:
            try:
                for task in remaining:
                    under_way.append((task, pool.submit(function, task)))
                    if len(under_way) >= AHEAD * workers:
                        yield under_way[0][0], under_way[0][1].result()
                        under_way.popleft()
                while under_way:
                    yield under_way[0][0], under_way[0][1].result()
                    under_way.popleft()
            except BrokenProcessPool:
                lost = [task for task, _ in under_way]
                under_way.clear()
        if not lost:
            return
        for task in lost:
            yield task, died(task)


def survives(function: Callable[[T], R], task: T) -> bool:
    """Call a function in a process of its own; says whether that came to its end.

    What the function raises is not passed on, and counts as an end.
    """
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(function, task))
    process.start()
    process.join()
    return process.exitcode == 0


def _alone(function: Callable[[T], R], task: T) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(Exception):
        function(task)


@contextlib.contextmanager
def _pool(workers: int, close: tuple[int, ...]) -> Iterator[ProcessPoolExecutor]:
    """Processes that are gone when the block is left."""
    ours, theirs = os.pipe()  # nothing is ever written: its end is the end of this process
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _begin,
                               (ours, (theirs, *close)))
    try:
        yield pool
        pool.shutdown()
    finally:
        os.close(theirs)  # who is still at work ends now
        pool.shutdown(cancel_futures=True)
        os.close(ours)


def _begin(alive: int, close: tuple[int, ...]) -> None:
    """Begin a process: Ctrl-C is for the parent, and with the parent it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for descriptor in close:
        os.close(descriptor)

    def end_with_parent() -> None:
        os.read(alive, 1)
        os._exit(1)
    threading.Thread(target=end_with_parent, daemon=True).start()
