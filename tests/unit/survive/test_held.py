"""A shard and its copy: the same changes in the same order, whoever dies; a push counts once."""
import random
from collections import deque

import numpy as np
import pytest

from hpclcae import config as configuration
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.header import INITIALISE, PUSH, Header
from hpclcae.survive.held import Entry, HeldShard
from hpclcae.survive.wire import JOIN, LEAVE, SNAPSHOT, Lost
from hpclcae.training.serving import Serving

SMALL = """
data = {size = 8, channels = 1}
stages = [{receptive_field = 3, maps = 2, pooling = 2, lcn = 0}]
train = {dtype = "float64"}
parallel = {servers = 1, replicas = 2, elastic = 0.1}
"""  # elastic averaging: what is pushed is what is added, so integers add up exactly


def held(folder, part, **more):
    config = configuration.loads(SMALL)
    shards = Shards(Layout(config), 1)
    return HeldShard(Serving(shards, 0, folder, None, part=part), **more)


class Copy:
    """A peer whose other end is a copy that has taken so many of the entries."""

    def __init__(self, shard):
        self.shard, self.sent, self.gone = shard, deque(), False

    def send(self, header, content=None, keep=False):
        if self.gone:
            raise Lost
        self.sent.append((header, None if content is None else np.array(
            content.reshape(-1).view(np.uint8))))

    def take(self):
        """Let the copy have the oldest; whether that is to be confirmed."""
        header, content = self.sent.popleft()
        if header.kind == SNAPSHOT:
            self.shard.take_snapshot(header, content)
            return False
        self.shard.change(header, content)
        return True


def change(kind, replica, chunk=0, clock=0, base=0, content=(), applied=lambda: None):
    return Entry(Header(kind, chunk, clock, base, pushes=replica), np.array(content, float).view(
        np.uint8), applied)


def begun(folder):
    """A shard of zeros with its copy, and two replicas in their first life."""
    holder, copy = held(folder, 0, is_holder=True), held(folder, 1, is_holder=False)
    for index, chunk in enumerate(holder.store.chunks):
        holder.submit(change(INITIALISE, 0, index, content=np.zeros(chunk.size)))
    for replica in range(2):
        holder.submit(change(JOIN, replica, base=1))
    link = Copy(copy)
    holder.begin_copy(link)
    while link.sent:
        link.take()
    return holder, copy, link


def sums(shard):
    return [float(values.sum()) / values.size for values in shard.store.values]


def test_nothing_is_shown_or_acknowledged_before_the_copy_has_it(tmp_path):
    holder, copy, link = begun(tmp_path)
    size, applied = holder.store.chunks[0].size, []
    holder.submit(change(PUSH, 0, content=np.ones(size), applied=lambda: applied.append(1)))
    assert not applied and sums(holder)[0] == 0
    assert link.take()
    assert sums(copy)[0] == 1 and not applied
    holder.confirmed()
    assert applied and sums(holder)[0] == 1


@pytest.mark.parametrize("seed", range(20))
def test_whenever_the_holder_dies_every_push_counts_once(tmp_path, seed):
    """Two replicas push integers; what was not acknowledged is pushed again to the copy."""
    rng = random.Random(seed)
    holder, copy, link = begun(tmp_path)
    size, kept = holder.store.chunks[0].size, {}
    for clock in range(8):
        for replica in range(2):
            content, key = np.full(size, 10.0 ** replica), (replica, clock)
            kept[key] = content
            holder.submit(change(PUSH, replica, clock=clock, content=content.copy(),
                                 applied=lambda key=key: kept.pop(key)))
        while link.sent and rng.random() < 0.6:
            if link.take() and rng.random() < 0.8:
                holder.confirmed()
            elif rng.random() < 0.5:
                break
    while link.sent and rng.random() < 0.5:
        link.take()
    link.gone = True  # the holder dies
    shown = holder.store.versions.copy()
    copy.promote()
    assert (copy.store.versions >= shown).all()
    for (replica, clock), content in list(kept.items()):
        copy.submit(change(PUSH, replica, clock=clock, content=content))
    assert sums(copy)[0] == 8 + 80 and copy.store.versions[0] == 16


def test_what_the_copy_lost_happens_at_the_holder_alone_when_it_is_told_that_it_is_the_holder(
        tmp_path):
    """Its link to the copy may be cut, and the copy have taken over: then nothing counts here."""
    holder, _, link = begun(tmp_path)
    size, applied = holder.store.chunks[0].size, []
    for clock in range(3):
        holder.submit(change(PUSH, 0, clock=clock, content=np.ones(size),
                             applied=lambda: applied.append(1)))
    link.gone = True
    for _ in range(2):
        holder.submit(change(PUSH, 0, clock=clock + 1, content=np.ones(size),
                             applied=lambda: applied.append(1)))
        clock += 1
        holder.lose_copy()
    assert not applied and sums(holder)[0] == 0
    holder.go_alone()
    assert len(applied) == 5 and sums(holder)[0] == 5
    holder.submit(change(PUSH, 1, content=np.ones(size), applied=lambda: applied.append(1)))
    assert len(applied) == 6


def test_a_new_copy_has_what_the_one_before_did_not_confirm(tmp_path):
    holder, _, _ = begun(tmp_path)
    size, applied = holder.store.chunks[0].size, []
    holder.submit(change(PUSH, 0, content=np.ones(size), applied=lambda: applied.append(1)))
    holder.lose_copy()
    holder.go_alone()
    copy = held(tmp_path, 2, is_holder=False)
    link = Copy(copy)
    holder.begin_copy(link)
    while link.sent:
        link.take()
    holder.submit(change(PUSH, 1, content=np.ones(size), applied=lambda: applied.append(1)))
    assert len(applied) == 1 and link.take()
    holder.confirmed()
    assert sums(holder)[0] == sums(copy)[0] == 2 and len(applied) == 2


def test_another_life_does_not_repeat_what_the_one_before_has_pushed(tmp_path):
    holder, copy, link = begun(tmp_path)
    size = holder.store.chunks[0].size
    for clock in range(3):
        holder.submit(change(PUSH, 1, clock=clock, content=np.ones(size)))
    holder.submit(change(LEAVE, 1, clock=1, base=1))
    while link.sent:
        link.take()
        holder.confirmed()
    for shard in (holder, copy):
        assert not shard.store.is_current(1, 1)  # the fence: whatever still comes of that life
    holder.submit(change(JOIN, 1, clock=1, base=2))
    for clock in range(1, 5):
        holder.submit(change(PUSH, 1, clock=clock, content=np.ones(size)))
    while link.sent:
        link.take()
        holder.confirmed()
    for shard in (holder, copy):
        assert sums(shard)[0] == 5 and shard.store.counters.dropped == 2
        assert shard.store.is_current(1, 2) and not shard.store.is_current(1, 1)


def test_the_copy_in_a_job_that_was_resumed_logs_to_that_job(tmp_path):
    """It takes the parameters from the holder, not from the checkpoint."""
    config = configuration.loads(SMALL.replace("replicas = 2", "replicas = 2, log_events = true"))
    serving = Serving(Shards(Layout(config), 1), 0, tmp_path, tmp_path / "step-00000007", part=1,
                      is_copy=True)
    assert serving.store.missing
    assert [path.name for path in (tmp_path / "events").glob("*/*")] == ["server-0.1.bin"]
    assert (tmp_path / "events/from-00000007").is_dir()
    serving.close()
