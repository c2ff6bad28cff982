"""Jobs on the test cluster of slurm_cluster.sh, each under a time limit; and what can happen to a node."""
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import RUN

ROOT = RUN.parent
SCRIPT = Path(__file__).parent / "slurm_cluster.sh"
#: The folder that slurm_cluster.sh was started with; .ci/run sets it.
FOLDER = os.environ.get("HPCLCAE_SLURM_CLUSTER", "")
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
NODES = tuple(f"node{number}" for number in range(1, 5))


def command(*words: object, timeout: float = 30, **variables: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=timeout, cwd=ROOT,
                          env=os.environ | variables)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def until(condition: Callable[[], object], limit: float, what: Callable[[], str]) -> None:
    """Look again and again until something holds, for at most `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit:g} s: {what()}"
        time.sleep(0.05)


def why_not() -> str:
    """Why there is no cluster to test on; "" if there is."""
    if not FOLDER:
        return ("no SLURM cluster (.ci/run starts one): bash tests/support/slurm_cluster.sh start FOLDER, then set "
                "HPCLCAE_SLURM_CLUSTER to FOLDER and SLURM_CONF to FOLDER/slurm.conf")
    try:
        command("sinfo", timeout=10)
    except (OSError, AssertionError, subprocess.TimeoutExpired) as error:
        return f"the SLURM cluster in {FOLDER} does not answer: {error}"
    return ""


class Job:
    """A job, its log, and its state."""

    def __init__(self, number: str, log: Path) -> None:
        self.number, self.log = number, log

    @property
    def said(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def state(self) -> str:
        """SLURM's word, for instance RUNNING."""
        found = re.search(r"JobState=(\w+)", command("scontrol", "show", "job", self.number))
        assert found
        return found[1]

    @property
    def exit_code(self) -> int:
        """Of the batch script."""
        found = re.search(r" ExitCode=(\d+):", command("scontrol", "show", "job", self.number))
        assert found
        return int(found[1])

    def until_said(self, text: str, limit: float, times: int = 1) -> None:
        """Wait for a text on the log."""
        until(lambda: self.said.count(text) >= times, limit, lambda: f"{text!r} ({self.state}):\n{self.said}")

    def until_there(self, path: Path, limit: float) -> None:
        """Wait for a file with something in it."""
        until(lambda: path.exists() and path.stat().st_size, limit, lambda: f"{path} ({self.state}):\n{self.said}")

    def ended(self, limit: float) -> str:
        """Wait until the job is over for good; its last state."""
        until(lambda: self.state in OVER, limit, lambda: f"the end of job {self.number} ({self.state}):\n{self.said}")
        return self.state

    def signal(self, name: str) -> None:
        """Send a signal to the ranks (not to the script)."""
        command("scancel", f"--signal={name}", self.number)


def submit(script: str, *words: object, log: Path, options: tuple[str, ...] = (), **variables: str) -> Job:
    """Submit a job of slurm/ with this Python's environment."""
    settings = {"HPCLCAE_VENV": sys.prefix, **variables}
    number = command("sbatch", "--parsable", f"--output={log}", "--mem=500", *options, f"slurm/{script}", *words,
                     **settings).strip()
    return Job(number, log)


# ---- nodes -----------------------------------------------------------------------------------------------------

def cluster(action: str, *words: str) -> str:
    """Call slurm_cluster.sh."""
    return command("bash", SCRIPT, action, FOLDER, *words, timeout=90)


def idle() -> bool:
    """Whether all nodes wait for work."""
    states = command("sinfo", "--noheader", "--Node", "--format=%T").split()
    return states == ["idle"] * len(NODES)


def on_node(node: str, *words: object) -> None:
    """Run a command with the mounts of one node: it sees, and changes, what the node's jobs see."""
    outer = (Path(FOLDER) / f"{node}.pid").read_text().strip()
    first, *_ = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    command("nsenter", "--target", first, "--mount", "--pid", "--", *words)


def processes(text: str) -> list[str]:
    """Command lines of processes, on any node, that name a text; not those of this test."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if text in line and "pytest" not in line:
            found.append(line)
    return found
