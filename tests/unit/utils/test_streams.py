"""Standard streams of a process: any text, any encoding, no reader, no room, no stream at all."""
import os
import subprocess
import sys

import pytest

from tests.support.processes import ROOT

#: Prints much before and after, and leaves a file when it is through.
PROGRAM = """
import sys
from hpclcae import cli
from hpclcae.utils.errors import InputError
from types import SimpleNamespace
def run(args):
    for i in range(20000):
        print(args.word, i, "caf\\u00e9", "\\u0105")
    print("warning", args.word, file=sys.stderr)
    open(args.word, "w").write("\\u0105")
sys.modules["hpclcae.fake"] = SimpleNamespace(configure=lambda p: p.add_argument("word"), run=run)
cli.COMMANDS["fake"] = ("hpclcae.fake", "do as told", "hpclcae fake word")
sys.exit(cli.main())
"""
ODD = b"b\xe9"


def run(tmp_path, stdout=subprocess.PIPE, close=(), **environment):
    """The process, and whether it went on to its end."""
    changed = {"PYTHONPATH": str(ROOT), **environment}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, "fake", ODD], cwd=tmp_path, stdout=stdout,
        stderr=subprocess.PIPE, timeout=60, env={**os.environ, **changed},
        preexec_fn=lambda: [os.close(descriptor) for descriptor in close])
    return process, (tmp_path / os.fsdecode(ODD)).is_file()


@pytest.mark.parametrize("environment, line", [
    ({"PYTHONIOENCODING": "utf-8:strict"}, b"b\xe9 0 caf\xc3\xa9 \xc4\x85\n"),
    ({"PYTHONIOENCODING": "latin-1"}, b"b\xe9 0 caf\xe9 \\u0105\n"),
    ({"PYTHONIOENCODING": "ascii"}, b"b\xe9 0 caf\\xe9 \\u0105\n"),
    ({"LC_ALL": "C"}, b"b\xe9 0 caf\xc3\xa9 \xc4\x85\n"),
    ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
     b"b\xe9 0 caf\xc3\xa9 \xc4\x85\n")])
def test_every_text_in_every_locale(tmp_path, environment, line):
    process, ended = run(tmp_path, **environment)
    assert (process.returncode, ended, process.stderr) == (0, True, b"warning b\xe9\n")
    assert process.stdout.startswith(line)
    assert (tmp_path / os.fsdecode(ODD)).read_bytes() == "\u0105".encode()


def test_a_reader_that_goes_away_does_not_end_the_work(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    process, ended = run(tmp_path, stdout=writer)
    os.close(writer)
    assert (process.returncode, ended, process.stderr) == (1, True, b"warning b\xe9\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_does_not_end_the_work(tmp_path):
    with open("/dev/full", "w") as full:
        process, ended = run(tmp_path, stdout=full)
    assert (process.returncode, ended) == (1, True)
    assert process.stderr == b"warning b\xe9\nhpclcae fake: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("close", [(1,), (2,), (0, 1, 2)])
def test_closed_streams(tmp_path, close):
    process, ended = run(tmp_path, close=close)
    assert (process.returncode, ended) == (0, True)
    assert (tmp_path / os.fsdecode(ODD)).read_bytes() == "\u0105".encode()
