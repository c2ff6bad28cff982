"""Two hosts on one machine: Linux namespaces that share no memory, joined by a virtual cable.

Each host has its own network (with nothing but the cable), name, IPC and /dev/shm; only the files
are common, as on a cluster. A host lives as long as processes that are in it, and the one that
holds it as long as this process keeps its pipe open. So hosts and cable go away whatever happens,
and nothing outside is touched.
"""
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.processes import run_limited

ADDRESSES = ("192.0.2.1", "192.0.2.2")  # for documentation: they lead nowhere
TOOLS = ("ip", "unshare", "nsenter", "mount")
HOLD = ("hostname host{} && mount -t tmpfs shm /dev/shm && mount -t sysfs sysfs /sys && ip link "
        "set lo up && echo ready && exec cat")
#: Linux says up to a second late that a new cable is plugged in; MPI libraries skip one that is
#: not.
PLUGGED_IN = "until grep -q up /sys/class/net/eth0/operstate; do sleep 0.05; done"


class NoHosts(Exception):
    """This system does not allow it; the message says why."""


class TwoHosts:
    """What runs on two hosts, the first of which starts MPI's jobs."""

    def __init__(self, pids: list[int], launcher: Path) -> None:
        self.pids, self.launcher = pids, launcher

    def enter(self, host: int, *command: str) -> list[str]:
        """The command that runs `command` on host 0 or 1."""
        return ["nsenter", "-t", str(self.pids[host]), "--net", "--uts", "--ipc", "--mount", "--",
                *command]

    def run(self, host: int, *command: str, timeout: float = 10) -> subprocess.CompletedProcess:
        """Run a command on host 0 or 1."""
        return run_limited(self.enter(host, *command), timeout)

    def mpiexec(self, program: str, *words: str, ranks: int = 2,
                timeout: float = 120) -> subprocess.CompletedProcess:
        """Run Python on several ranks, in turn on each host, with MPICH's mpiexec."""
        return self.run(0, program, "-launcher", "ssh", "-launcher-exec", str(self.launcher),
                        "-hosts", ",".join(ADDRESSES), "-n", str(ranks), sys.executable,
                        *map(str, words), timeout=timeout)

    def received(self, host: int) -> int:
        """Bytes that have come through the cable."""
        return int(self.run(host, "cat", "/sys/class/net/eth0/statistics/rx_bytes").stdout)


#: Called like ssh: options, address, command.
LAUNCHER = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
address=$1; shift
case $address in
{}
esac
echo "$address is no host of this test" >&2; exit 1
"""


@contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Two hosts; `folder` takes the script that stands in for ssh.

    Raises
    ------
    NoHosts
        Not root, a tool is missing, or namespaces are not allowed here.
    """
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if sys.platform != "linux" or os.geteuid() or missing:
        raise NoHosts(f"two hosts need Linux, root and {', '.join(missing or TOOLS)}")
    launcher = folder / "enter_host.sh"
    with ExitStack() as held:
        hosts = TwoHosts([held.enter_context(_host(number)) for number in range(2)], launcher)
        cases = [f'{address}) exec {" ".join(hosts.enter(host, "sh", "-c"))} "$*" ;;'
                 for host, address in enumerate(ADDRESSES)]
        launcher.write_text(LAUNCHER.format("\n".join(cases)))
        launcher.chmod(0o755)
        _plug_in(hosts)
        yield hosts


@contextmanager
def _host(number: int) -> Iterator[int]:
    """The number of the process that holds a host; in the end, all that runs on it is killed."""
    command = ["unshare", "--net", "--uts", "--ipc", "--mount", "sh", "-c", HOLD.format(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as holder:
        assert holder.stdin and holder.stdout and holder.stderr
        if holder.stdout.readline() != "ready\n":
            raise NoHosts(f"two hosts cannot be made here: {holder.stderr.read().strip()}")
        network = os.stat(f"/proc/{holder.pid}/ns/net").st_ino
        try:
            yield holder.pid
        finally:
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):  # it has ended by itself, or is not ours
                    if (process / "ns" / "net").stat().st_ino == network:
                        os.kill(int(process.name), signal.SIGKILL)


def _plug_in(hosts: TwoHosts) -> None:
    """Join the hosts and give them their addresses."""
    steps = [(0, f"ip link add eth0 type veth peer name eth0 netns {hosts.pids[1]}")]
    steps += [(host, f"ip addr add {address}/24 dev eth0 && ip link set eth0 up")
              for host, address in enumerate(ADDRESSES)]
    for host, step in [*steps, (0, PLUGGED_IN), (1, PLUGGED_IN)]:
        done = hosts.run(host, "sh", "-c", step)
        if done.returncode:
            raise NoHosts(f"two hosts cannot be joined here: {done.stderr.strip()}")
