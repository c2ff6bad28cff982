"""The command line: exit codes, one line for what goes wrong, help that explains itself."""
import argparse
import importlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hpclcae import __version__, cli
from hpclcae.utils.errors import InputError, MissingExtraError, require
from tests.support.processes import RUN


@pytest.fixture
def command(monkeypatch):
    """Run ``hpclcae fake WORD`` with a function as the command."""
    def run(function, *words):
        def configure(parser):
            parser.add_argument("word", nargs="?")
        monkeypatch.setitem(sys.modules, "hpclcae.fake",
                            SimpleNamespace(configure=configure, run=function))
        monkeypatch.setitem(cli.COMMANDS, "fake",
                            ("hpclcae.fake", "do as told", "hpclcae fake word"))
        return cli.main(["fake", *words])
    return run


def raising(error):
    def run(args):
        raise error
    return run


@pytest.mark.parametrize("error, code, line", [
    (InputError("size = 3 is odd: make it even"), 1, "hpclcae fake: size = 3 is odd: make it even"),
    (FileNotFoundError(2, "No such file", "x.h5"), 1,
     "hpclcae fake: [Errno 2] No such file: 'x.h5'"),
    (OSError("read failed: time = Sunday\n, file = x.h5"), 1,
     "hpclcae fake: read failed: time = Sunday , file = x.h5"),
    (MemoryError("571 GiB"), 1, "hpclcae fake: not enough memory (571 GiB): 'hpclcae show "
     "CONFIGURATION' says what a network needs; make it or the batch smaller"),
    (KeyboardInterrupt(), 130, "hpclcae fake: interrupted")])
def test_an_error_is_one_line_and_an_exit_code(command, capsys, error, code, line):
    assert command(raising(error)) == code
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", line + "\n")


def test_a_mistake_in_the_code_is_not_hidden(command):
    with pytest.raises(ZeroDivisionError):
        command(raising(ZeroDivisionError()))


def test_the_exit_code_is_what_the_command_returns(command):
    assert command(lambda args: None) == 0
    assert command(lambda args: 3) == 3
    assert command(lambda args: 0 if args.word == "word" else 1, "word") == 0


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_every_command_explains_it_with_an_example(name, capsys):
    _, summary, example = cli.COMMANDS[name]
    with pytest.raises(SystemExit) as caught:
        cli.main([*name.split(), "--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"usage: hpclcae {name}" in said and summary[1:] in said.replace("\n", " ")
    assert f"example:\n  {example}\n" in said and example.startswith(f"hpclcae {name} ")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_argument_of_every_command_is_explained(name):
    parser = argparse.ArgumentParser()
    importlib.import_module(cli.COMMANDS[name][0]).configure(parser)
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize("words, names",
                         [([], list(cli.COMMANDS)), (["--help"], list(cli.COMMANDS)),
                          (["data", "--help"], ["data fetch", "data info"])])
def test_the_overview_lists_commands_with_their_examples(words, names, capsys):
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    for name in names:
        assert f"  {name} " in said and cli.COMMANDS[name][2] in said


def test_a_group_without_a_command_lists_its_commands_and_fails(capsys):
    assert cli.main(["data"]) == 2
    said = capsys.readouterr().out
    assert "data ingest" in said and "neurons" not in said


@pytest.mark.parametrize("words",
                         [["trian"], ["dat"], ["data", "inof"], ["trian", "--help"], ["--speling"]])
def test_what_is_no_command_is_one_line_that_names_the_commands(words, capsys):
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"hpclcae: '{' '.join(words)}' is not a command; the commands are: "
                               "data fetch, ")


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hpclcae {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["show", str(RUN / "tiny.toml")]])
def test_a_reader_that_goes_away_is_no_error_to_talk_about(words):
    """hpclcae ... | head"""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        environment = {name: value for name, value in os.environ.items()
                       if name != "PYTHONUNBUFFERED"}
        process = subprocess.run([sys.executable, "-m", "hpclcae", *words], stdout=writer,
                                 stderr=subprocess.PIPE, env=environment, timeout=60)
    finally:
        os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


def test_a_missing_library_names_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError,
                       match=r"^reading pictures needs PIL, .*: pip install 'hpclcae\[images\]'$"):
        require("PIL.Image", "images", "reading pictures")
    assert require("json", "images", "nothing") is sys.modules["json"]


def test_several_processes_are_refused_by_the_first_and_silently_by_the_others(monkeypatch, capsys):
    monkeypatch.setenv("PMI_SIZE", "3")
    monkeypatch.setenv("PMI_RANK", "0")
    assert cli.main(["show", "run/paper.toml"]) == 1
    assert capsys.readouterr().err == ("hpclcae show: it runs in one process, and 3 were launched: "
                                       "use mpiexec -n 1\n")
    assert cli.main(["data", "ingest", "photos", "--out", "a.h5"]) == 1
    assert capsys.readouterr().err.endswith("use mpiexec -n 1, and --workers 3\n")
    monkeypatch.setenv("PMI_RANK", "2")
    assert cli.main(["show", "run/paper.toml"]) == 1
    assert capsys.readouterr() == ("", "")
