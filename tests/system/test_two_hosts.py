"""One network on two hosts that share no memory: the numbers of one block, by TCP."""
import json
import shutil
import subprocess

import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.partition.cost import choose_grid, traffic
from tests.support.mpi import MPIEXEC, train
from tests.support.processes import RUN
from tests.support.saving import datasets
from tests.support.two_hosts import NoHosts, two_hosts


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    if not MPIEXEC or "HYDRA" not in subprocess.run([MPIEXEC, "--version"], capture_output=True,
                                                    text=True).stdout:
        pytest.skip("two hosts need MPICH's mpiexec: pip install 'hpclcae[mpich]' brings it")
    try:
        with two_hosts(tmp_path_factory.mktemp("hosts")) as hosts:
            yield hosts
    except NoHosts as reason:
        pytest.skip(str(reason))


def test_the_hosts_share_neither_name_nor_memory_nor_network(hosts):
    memory = "touch /dev/shm/mark && ls -A /dev/shm"
    assert [hosts.run(host, "hostname").stdout for host in (0, 1)] == ["host0\n", "host1\n"]
    assert hosts.run(0, "sh", "-c", memory).stdout == "mark\n"
    assert hosts.run(1, "ls", "-A", "/dev/shm").stdout == ""
    links = [line.split()[0] for line in hosts.run(0, "ip", "-br", "link").stdout.splitlines()]
    assert len(links) == 2 and links[0] == "lo" and links[1].startswith("eth0@")


@pytest.mark.parametrize("grid", ["2x1", "1x2"])
def test_two_hosts_train_the_numbers_of_one_block(hosts, hpclcae, tiny_dataset, tiny_config,
                                                  tmp_path, grid):
    settings = ["--set", "train.dtype=float64"]
    before = [hosts.received(host) for host in (0, 1)]
    job = hosts.mpiexec(MPIEXEC, *train(tiny_dataset, tmp_path / "hosts"), *settings, "--grid",
                        grid)
    assert job.returncode == 0, job.stderr
    alone = hpclcae(*train(tiny_dataset, tmp_path / "alone")[2:], *settings)
    assert alone.returncode == 0, alone.stderr
    found, expected = (datasets(checkpoint.find(tmp_path / run)) for run in ("hosts", "alone"))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12 * abs(values).max(),
                                   err_msg=name)
    config = tiny_config("train.steps=6")
    halos = sum(t.values
                for t in traffic(config, choose_grid(config, 2, grid))) * config.train.batch * 6 * 8
    received = [hosts.received(host) - start for host, start in zip((0, 1), before)]
    assert halos < sum(received) < 2 * halos  # every halo went through the cable


def test_bad_input_on_two_hosts_ends_both_with_one_message(hosts, tiny_dataset, tmp_path):
    job = hosts.mpiexec(MPIEXEC, *train(tiny_dataset, tmp_path / "run"), "--grid", "2x2",
                        timeout=30)
    assert job.returncode != 0 and "Traceback" not in job.stderr
    ours = [line for line in job.stderr.splitlines() if line.startswith("hpclcae")
            or "rank 1 of" in line]
    assert len(ours) == 1 and "grid 2x2 has 4 blocks" in ours[0]


def test_connections_are_measured_within_a_node(hosts):
    job = hosts.mpiexec(MPIEXEC, "-m", "hpclcae", "bench", "server", RUN / "tiny.toml", "--parts",
                        "connections", ranks=4, timeout=60)
    assert job.returncode != 0 and "Traceback" not in job.stderr
    assert "leave it out (--parts step)" in job.stderr


@pytest.mark.parametrize("transport", ["rma", "messages"])
def test_a_server_on_the_other_host_trains_the_numbers_of_one_block(hosts, hpclcae, tiny_dataset,
                                                                    tmp_path, transport):
    """Every fetch and every push goes through the cable.

    The second host has the server for itself.
    """
    settings = ["--set", "train.dtype=float64"]
    before = sum(hosts.received(host) for host in (0, 1))
    job = hosts.mpiexec(MPIEXEC, *train(tiny_dataset, tmp_path / "hosts"), *settings, "--servers",
                        1, "--set",
                        "parallel.placement=apart", "--set", "parallel.overlap=false", "--set",
                        f"parallel.transport={transport}")
    assert job.returncode == 0, job.stderr
    worker, server = json.loads((tmp_path / "hosts/parallel.json").read_text())
    assert [(one["role"], one["node"], one["transport"]) for one in (worker, server)] == [
        ("replica 0 block 0", "host0", transport), ("server 0", "host1", transport)]
    assert sum(hosts.received(host)
               for host in (0, 1)) - before > worker["pushed_bytes"] + worker["fetched_bytes"] > 0
    alone = hpclcae(*train(tiny_dataset, tmp_path / "alone")[2:], *settings)
    assert alone.returncode == 0, alone.stderr
    found, expected = (datasets(checkpoint.find(tmp_path / run)) for run in ("hosts", "alone"))
    for name in expected:
        if name.startswith("stage"):
            np.testing.assert_allclose(found[name], expected[name], rtol=0,
                                       atol=1e-12 * abs(expected[name]).max(), err_msg=name)


def test_servers_and_replicas_on_both_hosts_lose_no_push(hosts, tiny_dataset, tmp_path):
    """Two servers, one on each host, and two replicas of two blocks each.

    Some share memory, some do not.
    """
    job = hosts.mpiexec(MPIEXEC, *train(tiny_dataset, tmp_path / "run"), "--servers", 2,
                        "--replicas", 2, "--grid", "2x1", ranks=6)
    assert job.returncode == 0, job.stderr
    told = json.loads((tmp_path / "run/parallel.json").read_text())
    servers = [one for one in told if one["role"].startswith("server")]
    assert {one["node"] for one in servers} == {"host0", "host1"}
    assert {one["transport"] for one in told} == {"rma"}
    assert {one["shared_memory"] for one in told} == {True, False}
    assert {tuple(one["versions"]) for one in servers} == {(2 * 6, 2 * 6)}


def test_nothing_is_left_of_the_hosts(tmp_path):
    if not shutil.which("ip"):
        pytest.skip("two hosts need ip")
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True).stdout
    try:
        with two_hosts(tmp_path) as hosts:
            assert subprocess.run(["ip", "-br", "link"], capture_output=True,
                                  text=True).stdout == links
            lasting = subprocess.Popen(hosts.enter(1, "sleep", "1000"))
            with pytest.raises(ZeroDivisionError):
                with two_hosts(tmp_path):
                    1 / 0
    except NoHosts as reason:
        pytest.skip(str(reason))
    assert lasting.wait(10) != 0  # ended with its host
    assert subprocess.run(["ip", "-br", "link"], capture_output=True, text=True).stdout == links
