"""``hpclcae launch --survive --hosts``: a link is cut for a moment, then for long.

The supervisor, a server and a replica are on one host, another server and replica on the other one.
"""
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpclcae import checkpoint
from hpclcae.survive.chaos import verify
from hpclcae.survive.history import events
from hpclcae.survive.supervisor import CONTACT
from hpclcae.utils.errors import InputError
from tests.support.mpi import MPIEXEC
from tests.support.processes import RUN
from tests.support.two_hosts import ADDRESSES, NoHosts, two_hosts

LIMIT = 240  # seconds after which something hangs
SILENCE = 6
#: Asks again and again, in the network of a host, and says the answers line by line.
WATCH = """
import json, sys, time
from pathlib import Path
from hpclcae.survive.tool import ask
from hpclcae.utils.errors import InputError
while True:
    try:
        print(json.dumps(ask(Path(sys.argv[1]), kind="who")), flush=True)
    except InputError:
        print("null", flush=True)
    time.sleep(0.1)
"""


@pytest.fixture
def hosts(tmp_path):
    if not MPIEXEC or "HYDRA" not in subprocess.run([MPIEXEC, "--version"], capture_output=True,
                                                    text=True).stdout:
        pytest.skip("hosts need MPICH's mpiexec: pip install 'hpclcae[mpich]' brings it")
    try:
        with two_hosts(tmp_path) as hosts:
            yield hosts
    except NoHosts as reason:
        pytest.skip(str(reason))


class Watched:
    """A surviving job on both hosts, and what its supervisor says."""

    def __init__(self, hosts, run, dataset):
        settings = {"data.train": dataset, "train.batch": 5, "train.steps": 1_000_000,
                    "train.checkpoint_every": 1_000_000, "train.log_every": 50,
                    "update.rule": "sgd", "parallel.copies": 1, "parallel.log_events": "true"}
        changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.run, self.said = run, run.with_suffix(".log")
        with self.said.open("w") as log:
            self.process = subprocess.Popen(hosts.enter(
                0, sys.executable, "-m", "hpclcae", "launch", "--survive", str(RUN / "tiny.toml"),
                "--out", str(run), "--hosts", ",".join(f"{name}:2" for name in ADDRESSES),
                "--servers", "2", "--replicas", "2", "--grid", "1x1", "--silence", str(SILENCE),
                *map(str, changes)), stdout=log, stderr=subprocess.STDOUT,
                env=os.environ | {"HYDRA_LAUNCHER_EXEC": str(hosts.launcher)})
        self.watch = subprocess.Popen(hosts.enter(0, sys.executable, "-c", WATCH, str(run)),
                                      stdout=subprocess.PIPE, text=True)

    def until(self, condition):
        """Wait until something holds; returns what the supervisor said then."""
        end, who = time.monotonic() + LIMIT, None
        while time.monotonic() < end and self.process.poll() is None:
            who = json.loads(self.watch.stdout.readline())
            if who and condition(who):
                return who
        raise AssertionError(f"{who} {self.said.read_text()}")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in (self.watch, self.process):
            if process.poll() is None:
                process.kill()
            process.wait()
        self.watch.stdout.close()


def on(who, host, kind="servers"):
    """Servers or replicas on a host."""
    name = f"host{host}"
    return [one for one in who[kind] if name in (one.get("node"), *one.get("nodes", {}).values())]


def all_train(who, steps):
    return all(seat["state"] == "training" and seat["step"] > steps for seat in who["seats"]) and (
        sum(len(server["copies"]) for server in who["servers"]) == 2)


def there(pids):
    """Processes that run, and are ours still."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if b"hpclcae" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def test_a_link_is_cut_for_a_moment_and_then_for_long(hosts, hpclcae, tiny_dataset, tmp_path):
    run = tmp_path / "run"
    link = ["ip", "link", "set", "eth0"]
    with Watched(hosts, run, tiny_dataset) as job:
        who = job.until(lambda who: all_train(who, 20))
        token = json.loads((run / CONTACT).read_text())["token"]
        assert [len(on(who, host, kind)) for host in (0, 1) for kind in ("servers", "seats")] == [
            1, 1, 1, 1]
        # For two seconds: all wait, and go on.
        steps = max(seat["step"] for seat in who["seats"])
        hosts.run(0, *link, "down")
        time.sleep(2)  # that is what is tested
        hosts.run(0, *link, "up")
        who = job.until(lambda who: all_train(who, steps + 20))
        assert not events(run), job.said.read_text()
        # For longer than anybody waits: the other host is given up, and its processes give up.
        steps = max(seat["step"] for seat in who["seats"])
        pids = {on(who, 1)[0]["pid"], *on(who, 1, "seats")[0]["pids"].values()}
        assert there(pids) == pids
        hosts.run(0, *link, "down")
        who = job.until(lambda who: all_train(who, steps + 20) and not on(who, 1, "seats")
                        and not on(who, 1))
        assert {row["kind"] for row in events(run)} == {"server", "replica", "join"}
        assert sorted(seat["life"] for seat in who["seats"]) == [1, 2]
        end = time.monotonic() + LIMIT
        while there(pids):
            assert time.monotonic() < end, pids
            time.sleep(0.1)
        hosts.run(0, *link, "up")
        os.kill(job.process.pid, signal.SIGTERM)
        assert job.process.wait(LIMIT) == 0, job.said.read_text()
    cursors = checkpoint.load_state(checkpoint.find(run)).cursors
    assert min(cursors) > steps
    while True:  # mpiexec's helper on the other host hears late that nobody is there
        with contextlib.suppress(InputError):
            assert any("counted exactly once" in line for line in verify(run, token))
            break
        assert time.monotonic() < end
        time.sleep(0.5)
    replayed = hpclcae("replay", run, timeout=120)
    assert replayed.returncode == 0 and "the same, bit for bit" in replayed.stdout, replayed.stdout
