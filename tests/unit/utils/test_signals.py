"""USR1 and TERM: noted, met between two steps; the second TERM ends the process."""
import os
import signal
import subprocess
import sys
import threading

import pytest

from hpclcae import checkpoint
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.training import trainer as training
from hpclcae.training.resume import starting_point
from hpclcae.training.step import train_step
from hpclcae.training.trainer import Trainer
from hpclcae.utils.signals import requests
from tests.support.saving import assert_same, datasets


def send(number):
    os.kill(os.getpid(), number)


def test_requests_are_noted_and_handlers_put_back():
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)
    with requests() as asked:
        assert not asked.checkpoint and not asked.end
        send(signal.SIGUSR1)
        assert asked.checkpoint and not asked.end
        send(signal.SIGTERM)
        assert asked.end
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)) == before


STARTING = """
import os, signal, sys
from types import SimpleNamespace
from hpclcae import cli
from hpclcae.utils.signals import requests

def configure(parser):  # the command's module is loaded
    os.kill(os.getpid(), signal.SIGUSR1)

def run(args):
    with requests() as asked:
        print(asked.checkpoint)
    with requests() as asked:
        print(asked.checkpoint)
    os.kill(os.getpid(), signal.SIGUSR1)
sys.modules["hpclcae.fake"] = SimpleNamespace(configure=configure, run=run)
cli.COMMANDS["fake"] = ("hpclcae.fake", "Do as told.", "hpclcae fake")
sys.exit(cli.main(["fake"]))
"""


def test_usr1_while_a_command_starts_is_kept_and_afterwards_ends_nothing():
    process = subprocess.run([sys.executable, "-c", STARTING], capture_output=True, text=True,
                             timeout=30)
    assert (process.returncode, process.stdout) == (0, "True\nFalse\n"), process.stderr


def test_signals_are_heeded_before_anything_is_loaded():
    """What cli.py imports at its top is imported before its first line."""
    heavy = "import sys, hpclcae.cli; print({'numpy', 'h5py', 'argparse'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True,
                             timeout=30)
    assert process.stdout == "set()\n", process.stderr


RESTARTED = """
import os, signal, sys
from hpclcae.utils import signals, streams
signals.listen()
if not sys.flags.utf8_mode:
    os.kill(os.getpid(), signal.SIGUSR1)
    streams.prepare()  # starts this program again
print(signals.take_early())
"""


def test_usr1_before_the_restart_in_utf8_mode_is_kept():
    process = subprocess.run(
        [sys.executable, "-c", RESTARTED], capture_output=True, text=True, timeout=30,
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert (process.returncode, process.stdout) == (0, "True\n"), process.stderr


TWO_TERMS = """
import os, signal
from hpclcae.utils.signals import requests
with requests() as asked:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        print(asked.end, flush=True)
"""


def test_the_second_term_ends_the_process():
    process = subprocess.run([sys.executable, "-c", TWO_TERMS], capture_output=True, text=True,
                             timeout=30)
    assert process.returncode == -signal.SIGTERM and process.stdout == "True\n"


def test_another_thread_listens_to_nothing():
    found = []

    def listen():
        with requests() as asked:
            found.append((asked.checkpoint, asked.end))
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [(False, False)]


@pytest.mark.parametrize("number, steps", [(signal.SIGUSR1, [3, 6]), (signal.SIGTERM, [3])])
def test_a_run_that_was_asked_gives_the_same_result(tiny_config, tmp_path, monkeypatch, number,
                                                    steps):
    """Asked while step 2 computes: after step 3 USR1 leaves a checkpoint, TERM ends the run, and it
    resumes."""
    config = tiny_config("train.steps=6", "train.keep=9")

    def asked(network, updates, step, *more):
        if step == 1:
            send(number)
        return train_step(network, updates, step, *more)
    with monkeypatch.context() as patched:
        patched.setattr(training, "train_step", asked)
        Trainer(config, tmp_path / "asked").train()
    saved = checkpoint.saved(tmp_path / "asked/checkpoints")
    assert saved == [checkpoint.step_folder(tmp_path / "asked", n) for n in steps]
    start = starting_point(config, tmp_path / "asked", True, SerialCommunicator())
    Trainer(config, tmp_path / "asked", start).train()
    Trainer(config, tmp_path / "whole").train()
    assert_same(*(datasets(checkpoint.find(tmp_path / run)) for run in ("asked", "whole")))
