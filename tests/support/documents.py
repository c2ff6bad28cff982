"""Command lines in notes and scripts, and whether they can be typed."""
import argparse
import importlib
import re
import shlex

from hpclcae import config as configuration
from hpclcae.cli import COMMANDS
from tests.support.processes import ROOT


def script_lines(text):
    """Lines of a script; a backslash at the end joins two."""
    return re.sub(r"\s*\\\n\s*", " ", text).splitlines()


def code_lines(text):
    """Lines of the fenced code blocks of a Markdown text."""
    return script_lines("\n".join(re.findall(r"^```(?:\w*)\n(.*?)^```", text,
                                             re.MULTILINE | re.DOTALL)))


def command_lines(lines):
    """Words after ``hpclcae`` of every line that calls it, as the shell would split them.

    Two blanks end them.
    """
    found = []
    for line in lines:
        called = re.match(
            r"(?:\$ )?(?:.*(?:\|\||&&|;) )?(?:mpiexec -n \d+ )?(?:python -m )?hpclcae (.*)",
            line.strip())
        if called:
            words = shlex.split(called.group(1).split("  ")[0], comments=True)
            end = next((i for i, word in enumerate(words)
                        if word in ("|", "&&", "||", ";", ">", ">>", "2>")), None)
            found.append([word for word in words[:end] if word != "$@"])
    return found


class Parser(argparse.ArgumentParser):
    """A parser that raises where argparse ends the process, and takes a script's variables."""

    def _get_value(self, action, text):
        return text if re.fullmatch(r"\$\w+", text) else super()._get_value(action, text)

    def _check_value(self, action, value):
        if not re.fullmatch(r"\$\w+", str(value)):
            super()._check_value(action, value)

    def error(self, message):
        raise AssertionError(message)


def check_typed(where, words):
    """Let the parser of a command read its words.

    Configurations and keys that they name must exist.
    """
    if words[:1] in (["--help"], ["--version"]) or words == ["COMMAND", "--help"]:
        return
    name = next((n for n in COMMANDS if words[:len(n.split())] == n.split()), None)
    assert name, f"{where}: hpclcae {' '.join(words)} is no command"
    rest = words[len(name.split()):]
    if "--help" in rest:
        return
    parser = Parser()
    importlib.import_module(COMMANDS[name][0]).configure(parser)
    args = parser.parse_intermixed_args(rest)
    file = str(getattr(args, "configuration", ""))
    if file.startswith("run/"):
        # The file exists, and every --set is allowed; what a script puts in for a variable is not
        # known here.
        configuration.load(ROOT / file,
                           [change for change in args.changes if not re.search(r"=\$\w+$", change)])
