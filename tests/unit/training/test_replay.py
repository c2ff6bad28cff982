"""A run again from its event log: the same bits; a log that was changed is noticed."""
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from hpclcae import cli, config as configuration
from hpclcae.checkpoint import ChunkState
from hpclcae.checkpoint.event_log import EventLog, first_checkpoint, logs, read_log
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.parameter_server.store import EVENT, FETCHED, PUSHED, ROUND_CLOSED
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks
from hpclcae.training.replay import ReplaySchedule, initial_states, replay_block
from hpclcae.training.replay_server import ReplayServer, events_of_chunks
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN
from tests.support.replicas import Servers, inputs, train_served

STEPS = 6


def configured(*changes):
    small = ("train.batch=3", "train.dtype=float64", "train.steps=6", "parallel.servers=2",
             "update.rate=0.02")
    return configuration.loads((RUN / "tiny.toml").read_text(), [*small, *changes])


def recorded(config, grid=Grid(1, 1), **more):
    """Train replicas as threads; the servers at the end, and their events."""
    kept = [[] for _ in range(config.parallel.servers)]
    servers = Servers(config, grid, config.parallel.servers, kept)
    train_served(config, servers, STEPS, grid, **more)
    return servers, [np.concatenate(events) for events in kept]


def held(servers, block):
    """What the servers hold of a block, as a checkpoint would."""
    found = {}
    for store in servers.stores:
        for index, chunk in enumerate(store.chunks):
            state = {slot: pieces[index] for slot, pieces in store.state.items()}
            found[chunk] = ChunkState(chunk, store.values[index], state, 0,
                                      int(store.versions[index]))
    return [found[chunk] for chunk in servers.shards.chunks[block]]


class Prepared:
    """In place of training.inputs.Inputs: images that are ready, and no conditioner."""
    batches = SimpleNamespace(passes=lambda step: 0.0)

    def __init__(self, config, replica, held):
        self.config, self.replica = config, replica
        self.part = slice(*held.rows), slice(*held.cols)

    def begin(self, step, parameters):
        pass

    def read(self, step, parameters):
        return inputs(self.config, step, self.replica, self.config.parallel.replicas)[self.part]

    def is_given(self, step):
        return False

    def labels(self, step):
        return None


def replayed(config, events, servers, grid=Grid(1, 1)):
    """The server of every block after a replay."""
    schedule, replicas = ReplaySchedule(events, config), config.parallel.replicas

    def block(communicator):
        network = Network(Layout(config, grid), communicator)
        chunks = servers.shards.chunks[communicator.rank]
        held_x = network.block.plan.stages[0].x.held
        server = ReplayServer(chunks, config,
                              events_of_chunks(events, servers.shards, communicator.rank),
                              initial_states(network.parameters(config.train.seed), chunks),
                              held(servers, communicator.rank))
        replay_block(network, server, schedule,
                     [Prepared(config, replica, held_x) for replica in range(replicas)])
        return server
    return run_blocks(grid.size, block)


def same(replays):
    return all(replay.left == 0 and [replay.gaps.get(i) for i in range(len(replay.chunks))] == [0.0]
               * len(replay.chunks) for replay in replays)


@pytest.mark.parametrize("changes", [
    ("parallel.replicas=3", "update.rule=momentum"),
    ("parallel.replicas=3", "update.rule=adam", "parallel.overlap=false"),
    ("parallel.replicas=2", "update.rule=sgd", "parallel.fetch_every=2", "parallel.push_every=3"),
    ("parallel.replicas=3", "update.rule=adagrad", "parallel.consistency=bounded",
     "parallel.staleness=1"),
    ("parallel.replicas=3", "update.rule=adam", "parallel.consistency=synchronous"),
    ("parallel.replicas=3", "update.rule=adam", "parallel.consistency=synchronous",
     "parallel.backup=1"),
    ("parallel.replicas=3", "update.rule=sgd", "update.delay_compensation=0.5",
     "update.staleness_scaled=true", "update.clip=0.05", "train.gradient=greedy"),
    ("parallel.replicas=2", "update.rule=momentum", "parallel.elastic=0.3",
     "parallel.fetch_every=2", "parallel.push_every=2", "train.dtype=float32"),
    ("parallel.replicas=3", "update.rule=adam", "parallel.outer_rate=0.7", "parallel.quorum=2",
     "parallel.fetch_every=2", "parallel.push_every=2", "train.gradient=greedy")], ids=" ".join)
@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(2, 1)], ids=str)
def test_the_replay_ends_with_the_same_bits(changes, grid):
    config = configured(*changes)
    servers, events = recorded(config, grid)
    assert all((store.versions > 0).any() for store in servers.stores)
    replays = replayed(config, events, servers, grid)
    assert same(replays)
    counted = sum(store.counters.pushes for store in servers.stores)
    tallied = sum(tally.pushes for replay in replays for tally in replay.tallies)
    dropped = sum(store.counters.dropped for store in servers.stores)
    assert sum(tally.dropped for replay in replays for tally in replay.tallies) == dropped
    if config.parallel.backup or config.parallel.outer_rate:  # a round has as many as came in time
        most = config.parallel.replicas - config.parallel.backup
        assert counted + dropped <= tallied <= most * counted + dropped
    else:
        assert tallied == counted * (config.parallel.replicas
                                     if config.parallel.consistency == "synchronous" else 1)
    if config.parallel.consistency != "synchronous":
        late = sum(int((store.counters.staleness * np.arange(65)).sum())
                   for store in servers.stores)
        assert sum(tally.staleness for replay in replays for tally in replay.tallies) == late


def test_a_fetch_that_was_blocked_is_replayed_once():
    """A greedy run of three replicas.

    The servers answered for the stages that were not trained, and only for them.
    """
    config = configured("parallel.replicas=3", "update.rule=adam",
                        "parallel.consistency=synchronous", "train.gradient=greedy")
    servers, events = recorded(config)
    twice = []
    for log in events:
        idle = np.setdiff1d(log["chunk"],
                            log["chunk"][(log["kind"] == PUSHED) & (log["clock"] < 2)])
        asked = np.flatnonzero((log["kind"] == FETCHED) & (log["replica"] == 1)
                               & (log["clock"] == 1) & np.isin(log["chunk"], idle))
        twice.append(np.insert(log, asked, log[asked]))
    assert sum(map(len, twice)) > sum(map(len, events))
    assert same(replayed(config, twice, servers))


@pytest.mark.parametrize("ends", list(itertools.permutations([1, 3, STEPS])), ids=str)
def test_rounds_that_were_closed_are_replayed(ends):
    config = configured("parallel.replicas=3", "update.rule=adam",
                        "parallel.consistency=synchronous", "parallel.backup=1")
    servers, events = recorded(config, ends=dict(enumerate(ends)))
    assert any((log["kind"] == ROUND_CLOSED).any() for log in events)
    assert same(replayed(config, events, servers))
    unclosed = [log[log["kind"] != ROUND_CLOSED] for log in events]
    try:
        assert not same(replayed(config, unclosed, servers))
    except InputError as error:
        assert "the log does not fit" in str(error)


@pytest.fixture(scope="module")
def run():
    config = configured("parallel.replicas=2", "update.rule=adam")
    return config, *recorded(config)


def first(log, **wanted):
    """The place of the first event with these fields."""
    return int(np.flatnonzero(np.all([log[name] == value for name, value in wanted.items()],
                                     axis=0))[0])


@pytest.mark.parametrize("field, value", [("version", 5), ("clock", 3), ("chunk", 1)])
def test_an_event_that_was_changed_is_noticed(run, field, value):
    config, servers, events = run
    log = events[1].copy()
    log[field][first(log, kind=PUSHED, chunk=0, version=2)] = value
    try:
        assert not same(replayed(config, [events[0], log], servers))
    except InputError as error:
        assert "the log does not fit" in str(error) and " of block 0, tiles [" in str(error)


def test_pushes_in_another_order_give_other_bits(run):
    """Two pushes of different replicas to one chunk that stand side by side change places:
    possible, but not so."""
    config, servers, events = run
    for number, log in enumerate(events):
        of_chunk = np.flatnonzero(log["chunk"] == 0)
        pairs = [(a, b) for a, b in zip(of_chunk, of_chunk[1:]) if log["kind"][a] == log["kind"][b]
                 == PUSHED and log["replica"][a] != log["replica"][b]]
        if pairs:
            break
    else:
        pytest.skip("no two replicas pushed one after the other")
    a, b = pairs[0]
    changed = log.copy()
    for name in ("replica", "clock"):
        changed[name][a], changed[name][b] = log[name][b], log[name][a]
    replays = replayed(config, [*events[:number], changed, *events[number + 1:]], servers)
    assert 0 < max(gap for gap in replays[0].gaps.values())


def test_a_log_that_ends_early_is_replayed_as_far_as_it_goes(run):
    config, servers, events = run
    cut = [events[0][:len(events[0]) // 2], events[1]]
    replay, = replayed(config, cut, servers)
    assert replay.left > 0 and len(replay.gaps) < len(replay.chunks)
    assert 0 < replay.store.versions.min() and all(gap == 0 for gap in replay.gaps.values())


def test_where_the_numbers_go_wrong_is_named(run):
    config = configured("parallel.replicas=2", "update.rule=sgd", "update.rate=300")
    with np.errstate(over="ignore", invalid="ignore"):
        servers, events = recorded(config)
        with pytest.raises(
                InputError,
                match=r"replica [01], step [2-6]: the objective of stage 1 is .* in version \d+ "
                r"of stage[123]/\w+ of block 0, tiles"):
            replayed(config, events, servers)
    config, servers, events = run
    chunks = servers.shards.chunks[0]
    replay = ReplayServer(chunks, config, events_of_chunks(events, servers.shards, 0),
                          initial_states(Network(Layout(config)).parameters(config.train.seed),
                                         chunks))
    event = np.array([(PUSHED, 1, 0, 2, 4, 1)], EVENT)
    replay.events[2] = event
    gradient = np.zeros(chunks[2].size)
    gradient[-1] = np.nan
    with pytest.raises(
            InputError,
            match=rf"replica 1, step 5: the gradient of {chunks[2].name} of block 0.*version 0"):
        replay.push(2, 1, 4, 0, 0.5, gradient)


def test_logs_that_cannot_be_of_the_run_are_refused(run):
    config, _, events = run
    with pytest.raises(InputError, match="log is damaged"):
        other = events[0].copy()
        other["replica"][3] = 2
        ReplaySchedule([other], config)
    with pytest.raises(InputError, match="push_every = 2 with backup replicas"):
        ReplaySchedule(events, configured(
            "parallel.replicas=2", "parallel.consistency=synchronous", "parallel.backup=1",
            "parallel.push_every=2", "parallel.fetch_every=2"))


def test_every_start_has_its_own_log(tmp_path):
    config, grid = configured("parallel.replicas=2", 'parallel.grid="auto"'), Grid(2, 1)
    event = np.array([(FETCHED, 1, 0, 3, 7, 2)], EVENT)
    checkpoint = tmp_path / "checkpoints/step-00000040"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("first")

    def write(start, count):
        for server in (0, 1):
            log = EventLog(tmp_path, start, server, config, grid)
            for _ in range(count):
                log(event)
            log.close()
    write(None, 2)
    write(checkpoint, 3)
    assert list(logs(tmp_path)) == [0, 40]
    folder = logs(tmp_path)[40]
    used, events = read_log(folder)
    assert used.parallel.grid == "2x1" and [list(e) for e in events] == [list(event) * 3] * 2
    (checkpoint / "manifest.json").unlink()  # the run keeps only the newest; the log keeps its own
    assert (first_checkpoint(folder) / "manifest.json").read_text() == "first"
    (checkpoint / "manifest.json").write_text("again")
    write(checkpoint, 1)
    assert (first_checkpoint(folder)
            / "manifest.json").read_text() == "again" and len(read_log(folder)[1][0]) == 1
    with (folder / "server-1.bin").open("ab") as file:
        file.write(b"half")  # of a record
    assert len(read_log(folder)[1][1]) == 1
    write(None, 1)
    assert list(logs(tmp_path)) == [0] and first_checkpoint(logs(tmp_path)[0]) is None
    (logs(tmp_path)[0] / "server-1.bin").unlink()
    with pytest.raises(InputError,
                       match=r"server-1.bin is missing: the logs of all 2 servers are needed"):
        read_log(logs(tmp_path)[0])


def test_bad_input_is_one_line(tmp_path, capsys):
    assert cli.main(["replay", str(tmp_path)]) == 1
    assert f"{tmp_path} has no events: train with" in capsys.readouterr().err
    config = configured("parallel.replicas=2")
    EventLog(tmp_path, None, 0, config, Grid(1, 1)).close()
    assert cli.main(["replay", str(tmp_path), "--from", "3"]) == 1
    assert "--from 3" in (said := capsys.readouterr().err) and "began with step 0" in said


def test_a_fetch_that_was_told_late_comes_before_the_update_that_followed_it():
    """A replica that reads a server's memory by itself says what it has read when it has."""
    held, log = Servers(configured("parallel.replicas=3"), Grid(1, 1), 1), []

    def note(kind, replica, version):
        log.append((kind, replica, 0, 0, 0, version))
    note(FETCHED, 0, 0)
    note(PUSHED, 0, 1)
    note(PUSHED, 1, 2)
    note(FETCHED, 2, 0)     # read before both
    note(PUSHED, 0, -1)     # dropped
    note(FETCHED, 1, 1)
    note(ROUND_CLOSED, -1, 3)
    note(FETCHED, 0, 3)
    [mine, *_] = events_of_chunks([np.array(log, EVENT)], held.shards, 0)
    assert [(int(e["kind"]), int(e["replica"]), int(e["version"])) for e in mine] == [
        (FETCHED, 0, 0), (FETCHED, 2, 0), (PUSHED, 0, 1), (FETCHED, 1, 1), (PUSHED, 1, 2),
        (PUSHED, 0, -1), (ROUND_CLOSED, -1, 3), (FETCHED, 0, 3)]
    again = events_of_chunks([mine], held.shards, 0)[0]
    assert again.tolist() == mine.tolist()
