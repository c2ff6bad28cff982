"""Jobs on the test cluster of slurm_cluster.sh, each under a time limit.

And what can happen to a node.
"""
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import ROOT

SCRIPT = Path(__file__).parent / "slurm_cluster.sh"
#: The folder that slurm_cluster.sh was started with; .ci/run sets it.
FOLDER = os.environ.get("HPCLCAE_SLURM_CLUSTER", "")
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")
NODES = tuple(f"node{number}" for number in range(1, 5))
#: Seconds after which something hangs: many times what it takes on a busy machine. No test is
#: faster for a lower one.
HANGS = 240


def command(*words: object, timeout: float = 60, **variables: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=timeout,
                          cwd=ROOT, env=os.environ | variables)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def until(condition: Callable[[], object], limit: float, what: Callable[[], str]) -> None:
    """Look again and again until something holds, for at most `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit:g} s: {what()}"
        time.sleep(0.1)


def why_not() -> str:
    """Why there is no cluster to test on; "" if there is."""
    if not FOLDER:
        return ("no SLURM cluster (.ci/run starts one): bash tests/support/slurm_cluster.sh start "
                "FOLDER, then set HPCLCAE_SLURM_CLUSTER to FOLDER and SLURM_CONF to "
                "FOLDER/slurm.conf")
    try:
        command("sinfo")
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

    def until_said(self, text: str, limit: float = HANGS) -> None:
        """Wait for a text on the log."""
        until(lambda: text in self.said, limit, lambda: f"{text!r} ({self.state}):\n{self.said}")

    def until_there(self, path: Path, limit: float = HANGS) -> None:
        """Wait for a file with something in it."""
        until(lambda: path.exists() and path.stat().st_size, limit,
              lambda: f"{path} ({self.state}):\n{self.said}")

    def ended(self, limit: float = HANGS) -> str:
        """Wait until the job is over for good; its last state."""
        until(lambda: self.state in OVER, limit,
              lambda: f"the end of job {self.number} ({self.state}):\n{self.said}")
        return self.state

    def signal(self, name: str) -> None:
        """Send a signal to the ranks (not to the script)."""
        command("scancel", f"--signal={name}", self.number)


def submit(script: str, *words: object, log: Path, options: tuple[str, ...] = (),
           **variables: str) -> Job:
    """Submit a job of slurm/ with this Python's environment."""
    settings = {"HPCLCAE_VENV": sys.prefix, **variables}
    number = command("sbatch", "--parsable", f"--output={log}", "--mem=500", *options,
                     f"slurm/{script}", *words, **settings).strip()
    return Job(number, log)


def unfinished() -> dict[str, str]:
    """Jobs that run, wait or are about to: their states, by their numbers."""
    lines = command("squeue", "--noheader", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def end_what_is_left() -> dict[str, str]:
    """Wait for jobs that are only COMPLETING, and end all others at once.

    Returns those others with their states.
    """
    until(lambda: "COMPLETING" not in unfinished().values(), HANGS, lambda: command("squeue"))
    left = unfinished()
    # held ranks, too; then the job, so that it does not start again
    for words in (["--signal=KILL", "--full"], []):
        for number in left:
            # A job may end by itself meanwhile, and scancel fails then: what counts is that none is
            # left.
            subprocess.run(["scancel", *words, number], capture_output=True, timeout=60)
    until(lambda: not unfinished(), HANGS, lambda: command("squeue"))
    return left


# ---- ranks ---------------------------------------------------------------------------------------

def processes(text: str) -> dict[int, str]:
    """Command lines, on any node, that name a text, by the processes' numbers outside the nodes."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if text in line and int(path.parent.name) != os.getpid():
            found[int(path.parent.name)] = line
    return found


def ranks(run: Path) -> list[int]:
    """Process numbers of the ranks that train a run."""
    return [number for number, line in processes(f" --out {run} ").items()
            if " -m hpclcae train " in line and not line.startswith("srun ")]


def hold(run: Path) -> None:
    """Stop the ranks of a run at once, past SLURM: it takes its time, and the run might end."""
    for rank in ranks(run):
        os.kill(rank, signal.SIGSTOP)


def let_go(run: Path, name: str) -> None:
    """Let held ranks go on, as soon as a signal that SLURM is to send has come to all of them."""
    bit = 1 << signal.Signals[f"SIG{name}"] - 1

    def has_come(rank: int) -> bool:
        found = re.search(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{rank}/status").read_text(),
                          re.MULTILINE)
        return found is not None and bool(int(found[1], 16) & bit)
    held = ranks(run)
    assert held, f"no rank of {run} is there"
    until(lambda: all(map(has_come, held)), HANGS, lambda: f"{name} for ranks {held}")
    for rank in held:
        os.kill(rank, signal.SIGCONT)


# ---- nodes ---------------------------------------------------------------------------------------

def cluster(action: str, *words: str) -> str:
    """Call slurm_cluster.sh."""
    return command("bash", SCRIPT, action, FOLDER, *words, timeout=HANGS)


def idle() -> bool:
    """Whether all nodes wait for work (and answer: `idle*` does not)."""
    states = command("sinfo", "--noheader", "--Node", "--partition=test", "--format=%T").split()
    return states == ["idle"] * len(NODES)


def lost() -> list[str]:
    """Numbers of the nodes that have ended."""
    return [node.removeprefix("node") for node in NODES
            if not (Path(FOLDER) / f"{node}.pid").exists()]


def on_node(node: str, *words: object) -> None:
    """Run a command with the mounts of one node: it sees, and changes, what the node's jobs see."""
    outer = (Path(FOLDER) / f"{node}.pid").read_text().strip()
    first, *_ = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    command("nsenter", "--target", first, "--mount", "--pid", "--", *words)
