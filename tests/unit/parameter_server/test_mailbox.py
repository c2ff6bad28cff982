"""The mailbox: every order in which the steps of workers and a server can happen.

A step makes one access to memory that both reach. The model goes through all states that any order
of steps leads to, and looks at every one: none is left to luck. The code is that of training; only
the memory is a model's: what is sent arrives piece by piece, in any order, until it is flushed, and
a worker may die between any two steps.
"""
import copy
from itertools import combinations_with_replacement

import numpy as np
import pytest

from hpclcae.parameter_server.mailbox import (EVERYTHING, HEADER, LINE, Inbox, MemoryMap, Outbox,
                                              SequenceLock, SharedWords, Slots, Words, slots_for)

PIECES = range(2)  # of mail, and of a chunk: what is not written at once


class ModelWords(Words):
    """Some words of a list."""

    def __init__(self, values, part=EVERYTHING):
        self.values, self._part = values, range(len(values))[part]

    def read(self, part=EVERYTHING):
        return np.array([self.values[n] for n in self._part[part]])

    def write(self, index, value):
        self.values[self._part[index]] = value


class Sender:
    """Sends mail one after the other, as a connection does; `mistakes` are what it must not do."""

    def __init__(self, number, system):
        self.number, slots = number, system.slots
        mine = slice(number * slots, (number + 1) * slots)
        self.outbox = Outbox(ModelWords(system.posted, mine), ModelWords(system.taken, mine), slots)
        self.slot, self.made, self.written, self.posted, self.dead = None, 0, 0, False, False

    def can_go_on(self, system):
        here = self.number, self.slot
        arrived = all(where != here for where, _, _ in system.under_way)
        waits = self.written == len(PIECES) and not (arrived or "no flush" in system.mistakes)
        return not self.dead and self.made < system.mails and not waits

    def step(self, system):
        if self.slot is None:
            self.slot = self.outbox.claim()
            if self.slot is None and "slot in use" in system.mistakes:
                self.slot = 0
                self.outbox.filling.add(0)
        elif self.written < len(PIECES) and (self.posted or "flag first" not in system.mistakes):
            system.write((self.number, self.slot), self.written, self.made)
            self.written += 1
        else:
            self.outbox.post(self.slot)
            self.posted = True
        if self.posted and self.written == len(PIECES):
            self.slot, self.written, self.posted = None, 0, False
            self.made += 1


class Server:
    """Takes mail piece by piece; what it has applied, in order: (worker, number of the mail)."""

    def __init__(self, system):
        self.inbox = Inbox(ModelWords(system.posted), ModelWords(system.taken), system.workers,
                           system.slots)
        self.reading, self.seen, self.applied = None, (), ()

    def can_go_on(self, system):
        return self.reading is not None or bool(self.inbox.complete())

    def step(self, system):
        if self.reading is None:
            self.reading = self.inbox.complete()[0]
            if "freed early" in system.mistakes:
                self.inbox.free(*self.reading)
        elif len(self.seen) < len(PIECES):
            self.seen += (system.memory[self.reading][len(self.seen)],)
        else:
            worker, slot = self.reading
            assert len({*self.seen}) == 1, f"half of one mail, half of another: {self.seen}"
            before = sum(sender == worker for sender, _ in self.applied)
            assert self.seen[0] == before, f"mail {self.seen[0]} of worker {worker} after {before}"
            self.applied += ((worker, before),)
            if "freed early" not in system.mistakes:
                self.inbox.free(worker, slot)
            self.reading, self.seen = None, ()


class System:
    """Workers, a server, and the memory between them."""

    def __init__(self, workers, slots, mails, *mistakes, remote=False, mortal=False):
        self.workers, self.slots, self.mails, self.mistakes = workers, slots, mails, mistakes
        self.remote, self.mortal = remote, mortal
        self.posted, self.taken = ([0] * workers * slots for _ in range(2))
        self.memory = {(w, s): [None] * len(PIECES) for w in range(workers) for s in range(slots)}
        self.under_way = []
        self.server = Server(self)
        self.senders = [Sender(number, self) for number in range(workers)]

    def write(self, where, piece, value):
        if self.remote:
            self.under_way.append((where, piece, value))
        else:
            self.store(where, piece, value)

    def store(self, where, piece, value):
        assert where != self.server.reading or "freed early" in self.mistakes, \
            "written to while the server reads it"
        self.memory[where][piece] = value

    def arrive(self, number):
        self.store(*self.under_way.pop(number))

    def key(self):
        """What makes this state different from others."""
        server = self.server
        return repr((self.posted, self.taken, self.memory, sorted(self.under_way), server.reading,
                     server.seen, server.applied, server.inbox._next.tolist(),
                     [(vars(one) | vars(one.outbox)) | {"outbox": 0, "_posted": 0, "_taken": 0}
                      for one in self.senders]))

    def steps(self):
        """What may happen next: functions of a system."""
        actors = [("senders", n) for n, one in enumerate(self.senders) if one.can_go_on(self)]
        found = [lambda s, n=n: s.senders[n].step(s) for _, n in actors]
        if self.mortal and not any(one.dead for one in self.senders):
            found.append(lambda s: setattr(s.senders[0], "dead", True))
        if self.server.can_go_on(self):
            found.append(lambda s: s.server.step(s))
        return found + [lambda s, n=n: s.arrive(n) for n in range(len(self.under_way))]

    def check_end(self):
        """Nothing can happen any more: everything has been applied, and every slot is free."""
        for sender in self.senders:
            assert self.server.applied.count((sender.number, sender.made - 1)) == (sender.made > 0)
            assert sender.made == self.mails or sender.dead
            assert sender.outbox.taken(sender.outbox.last)
        assert len(self.server.applied) == sum(sender.made for sender in self.senders)


def explore(system):
    """Go through every state that can be reached; returns how many there are."""
    todo, seen = [system], {system.key()}
    while todo:
        here = todo.pop()
        moved = False
        for step in here.steps():
            there = copy.deepcopy(here)
            step(there)
            moved = moved or there.key() != here.key()
            if (key := there.key()) not in seen:
                seen.add(key)
                todo.append(there)
        if not moved:
            here.check_end()
    return len(seen)


@pytest.mark.parametrize("workers, slots, mails, how", [
    (1, 1, 3, {}), (1, 2, 4, {}), (2, 1, 2, {}), (2, 2, 1, {"mortal": True}),
    (1, 1, 2, {"remote": True}), (1, 2, 3, {"remote": True, "mortal": True})], ids=str)
def test_in_any_order_of_steps_every_mail_is_applied_once_and_whole(workers, slots, mails, how):
    assert explore(System(workers, slots, mails, **how)) > 10


@pytest.mark.parametrize("mistake, how, complaint", [
    ("flag first", {}, "half of one mail|written to while|mail None"),
    ("no flush", {"remote": True}, "half of one mail|written to while|mail None"),
    ("slot in use", {}, "mail|written to while|half"),
    ("freed early", {}, "half of one mail|mail")])
def test_the_model_finds_what_is_done_wrong(mistake, how, complaint):
    with pytest.raises(AssertionError, match=complaint):
        explore(System(1, 1, 3, mistake, **how))


def test_a_full_ring_waits_and_a_slot_comes_free():
    posted, taken = [0] * 2, [0] * 2
    outbox = Outbox(ModelWords(posted), ModelWords(taken), 2)
    inbox = Inbox(ModelWords(posted), ModelWords(taken), 1, 2)
    first, second = outbox.claim(), outbox.claim()
    assert outbox.claim() is None and inbox.complete() == []
    outbox.post(second)                     # in any order
    assert outbox.claim() is None and inbox.complete() == [(0, second)]
    outbox.post(first)
    assert inbox.complete() == [(0, second)] and not outbox.taken(1)
    inbox.free(0, second)
    assert inbox.complete() == [(0, first)] and outbox.taken(1) and not outbox.taken(2)
    assert outbox.claim() == second and outbox.claim() is None


# ---- the lock ------------------------------------------------------------------------------------

class Recorded(Words):
    """Writes down what is written."""

    def __init__(self, name, trace):
        self.name, self.trace = name, trace

    def write(self, index, value):
        self.trace.append((self.name, index, value))


def test_in_any_order_of_steps_a_reader_keeps_only_whole_chunks():
    """A writer makes three versions while a reader reads one chunk."""
    trace = []
    lock = SequenceLock(Recorded("started", trace), Recorded("finished", trace))
    for version in (1, 2, 3):
        with lock.changing(0, version):
            trace.extend(("chunk", piece, version) for piece in PIECES)
    kept = set()
    for moments in combinations_with_replacement(range(len(trace) + 1), 2 + len(PIECES)):
        memory = {"started": [0], "finished": [0], "chunk": [0, 0]}
        done = 0

        def until(moment):
            nonlocal done
            for name, index, value in trace[done:moment]:
                memory[name][index] = value
            done = moment

        class Hooked(ModelWords):
            def read(self, part=EVERYTHING, left=iter((moments[0], moments[-1]))):
                until(next(left))
                return super().read(part)

        got = []

        def copy_chunk():
            for piece in PIECES:
                until(moments[1 + piece])
                got.append(memory["chunk"][piece])
        reader = SequenceLock(Hooked(memory["started"]), Hooked(memory["finished"]))
        version = reader.read(0, -1, copy_chunk)
        if version is not None:
            assert got == [version] * len(PIECES)
            kept.add(version)
    assert kept == {0, 1, 2, 3}


def test_a_version_that_is_there_already_is_not_copied():
    words = ModelWords([5, 7])
    assert SequenceLock(words, words).read(1, 7, lambda: pytest.fail("copied")) == 7


# ---- where things lie ----------------------------------------------------------------------------

def test_nothing_overlaps_in_the_memory_and_writers_share_no_cache_line():
    slots = [Slots(3, 192), Slots(9, 128), Slots(1, 64)]
    lay = MemoryMap([5, 7, 1], np.dtype(np.float32), slots)
    rows = len(slots) * lay.across * 8
    spans = [(start, 24) for start in (*lay.started, *lay.finished)]
    spans += [(lay.posted, rows), (lay.taken, rows), (lay.answers, LINE * 3),
              (lay.attention, LINE * 3), (int(lay.chunks[0]), 4 * 13)]
    spans += [(lay.slot(worker, n), one.bytes) for worker, one in enumerate(slots)
              for n in range(one.count)]
    spans.sort()
    assert all(start + size <= following for (start, size), (following, _)
               in zip(spans, spans[1:])) and sum(spans[-1]) == lay.total
    assert all(start % LINE == 0 for start, _ in spans)
    assert np.diff(lay.chunks).tolist() == [20, 28, 4]


@pytest.mark.parametrize("sizes, wanted, expected", [
    ([100, 300, 200], 8, Slots(4, HEADER + 320)), ([100, 300], 2, Slots(2, HEADER + 320)),
    ([1] * 50, 8, Slots(8, HEADER + 832))])
def test_slots_are_large_enough_and_no_more_than_are_used(sizes, wanted, expected):
    assert slots_for(sizes, wanted) == expected


def test_words_of_shared_memory_are_kept_in_order():
    done, memory = [], np.zeros(4, np.int64)
    words = SharedWords(memory, lambda: done.append(memory.tolist()))
    words.write(2, 5)                       # after what came before ...
    assert words.read(slice(1, 3)).tolist() == [0, 5]   # ... and before what follows
    assert done == [[0, 0, 0, 0], [0, 0, 5, 0]]
