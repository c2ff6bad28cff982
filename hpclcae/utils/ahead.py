"""What coming steps need, made in a thread while a step computes.

Work for one step is a generator. Where several blocks share a network, it yields numbers of its own
block and is sent their sums over all blocks. Only the main thread may talk to other blocks (an MPI
library need not bear more), and all blocks must take their sums in the same order. So a piece of
work lies between two sums, the thread does one piece of every coming step beside a step, and once
a step the main thread takes the sums of all of them together: in the same steps on all blocks.

    step that computes      7                 8                 9
    thread, meanwhile       8: last piece     9: last piece     10: last piece
                            9: second         10: second        11: second
                            10: first         11: first         12: first
    main thread, before     sums of 8, 9      sums of 9, 10     sums of 10, 11

A block that is alone needs no sums: its thread makes step 8 while 7 computes.
"""
from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from hpclcae.utils.background import Background

T = TypeVar("T")
Work = Generator[np.ndarray, np.ndarray, T]  # yields its own numbers, is sent the sums
Total = Callable[[ArrayLike], np.ndarray]    # the sum over all blocks, float64


def finish(work: Work[T], total: Total) -> T:
    """Do all of the work here and now."""
    try:
        sums = next(work)
        while True:
            sums = work.send(total(sums))
    except StopIteration as end:
        return end.value


class Ahead(Generic[T]):
    """Makes what steps need before they are taken.

    Parameters
    ----------
    make : callable
        make(step) gives the work for a step. It is called in the main thread, in order of steps,
        when the work is put in line; the work itself is done in the thread.
    sums : int
        How often work yields, at most; 0: the block is alone, and its numbers are the sums.
    total : callable
        The sum over all blocks; called in the main thread, alike on all blocks, unless sums is 0.
    """

    def __init__(self, make: Callable[[int], Work[T]], sums: int, total: Total) -> None:
        self._make, self._sums, self._total = make, sums, total
        self._line: deque[_Coming[T]] = deque()
        self._thread = Background("images")

    def take(self, step: int, end: int) -> T:
        """What was made for a step; waits until it is there, and lets the next ones be made.

        Steps are taken in order; those that are left out are forgotten. After any other step it
        begins anew.

        Parameters
        ----------
        end : int
            No step from here on will be asked for, as far as is known.

        Raises
        ------
        Exception
            What the work for this step raised (with several blocks: for any coming step).
        """
        self._thread.wait()
        while self._line and self._line[0].step != step:
            self._line.popleft()
        self._fill(step, max(end, step + 1))
        while not self._line[0].done:
            self._round()
            self._thread.wait()
        found = self._line.popleft()
        if found.error is not None:
            raise found.error
        if step + 1 < end:
            self._fill(step + 1, end)
            self._round()
        assert found.made is not None
        return found.made

    def forget(self) -> None:
        """Drop what was made; returns when the thread does nothing."""
        self._thread.wait()
        self._line.clear()

    def close(self) -> None:
        """Give up what nobody will take."""
        self._thread.close()
        self._line.clear()

    def _fill(self, step: int, end: int) -> None:
        for coming in range(step + len(self._line), min(step + self._sums + 1, end)):
            self._line.append(_Coming(coming, self._make(coming)))

    def _round(self) -> None:
        """Take the sums that are waited for, and let the thread do one piece of each."""
        self._add_up()
        coming = [each for each in self._line if not each.done]

        def work() -> None:
            for each in coming:
                self._thread.go_on()
                if self._sums:
                    each.advance()
                else:
                    each.complete()
        self._thread.begin(work)

    def _add_up(self) -> None:
        if not self._sums:
            return
        for each in self._line:
            if each.error is not None:  # the other blocks would wait for its numbers
                raise each.error
        waiting = [each for each in self._line if each.own is not None]
        if waiting:
            own = [np.asarray(each.own, np.float64) for each in waiting]
            sums = self._total(np.concatenate(own))
            for each, total in zip(waiting, np.split(sums, np.cumsum([len(o) for o in own])[:-1])):
                each.own, each.total = None, total


class _Coming(Generic[T]):
    """The work for one step, and how far it is."""

    def __init__(self, step: int, work: Work[T]) -> None:
        self.step, self.work = step, work
        self.own: np.ndarray | None = None    # numbers of this block that wait for their sum
        self.total: np.ndarray | None = None  # the sum that the next piece begins with
        self.made: T | None = None
        self.error: BaseException | None = None
        self.done = False

    def advance(self) -> None:
        """Do the next piece."""
        try:
            total, self.total = self.total, None
            self.own = next(self.work) if total is None else self.work.send(total)
        except StopIteration as end:
            self.made, self.done = end.value, True
        except BaseException as error:
            self.error, self.done = error, True

    def complete(self) -> None:
        """Do all of the work of a block that is alone."""
        try:
            self.made = finish(self.work, lambda own: np.array(own, np.float64))
        except BaseException as error:
            self.error = error
        self.done = True
