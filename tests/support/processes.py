"""Commands of the project as processes, each under a time limit."""
import os
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = ROOT / "run"


def run_limited(command, timeout, **options):
    """Run a command in a process group of its own.

    What it started is killed when the time is over.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
