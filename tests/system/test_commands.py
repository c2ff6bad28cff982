"""The commands that the project tells people to type can be typed.

Every line with ``hpclcae`` in a code block of README.md and the notes, in the scripts of run/ and in the command
table's examples is read by the parser of its command; configurations and keys that it names exist.
"""
import argparse
import importlib
import re
import shlex

import pytest

from hpclcae import config as configuration
from hpclcae.cli import COMMANDS
from hpclcae.geometry import network_geometry
from tests.conftest import RUN

ROOT = RUN.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "notes").glob("*.md"))]


def script_lines(text):
    """Lines of a script; a backslash at the end joins two."""
    return re.sub(r"\s*\\\n\s*", " ", text).splitlines()


def code_lines(text):
    """Lines of the fenced code blocks of a Markdown text."""
    return script_lines("\n".join(re.findall(r"^```(?:\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)))


def command_lines(lines):
    """Words after ``hpclcae`` of every line that calls it, as the shell would split them; two blanks end them."""
    found = []
    for line in lines:
        called = re.match(r"(?:\$ )?(?:.*(?:\|\||&&|;) )?(?:mpiexec -n \d+ )?(?:python -m )?hpclcae (.*)", line.strip())
        if called:
            words = shlex.split(called.group(1).split("  ")[0], comments=True)
            end = next((i for i, word in enumerate(words) if word in ("|", "&&", "||", ";", ">", ">>", "2>")), None)
            found.append([word for word in words[:end] if word != "$@"])
    return found


def documented():
    """Every command line that stands somewhere, with where it stands."""
    found = [(f"table {name}", words) for name, (_, _, example) in COMMANDS.items()
             for words in command_lines([example])]
    for page in PAGES:
        found += [(page.name, words) for words in command_lines(code_lines(page.read_text()))]
    for script in sorted(RUN.glob("*.sh")):
        found += [(script.name, words) for words in command_lines(script_lines(script.read_text()))]
    return found


LINES = documented()


class Parser(argparse.ArgumentParser):
    """A parser that raises where argparse ends the process."""

    def error(self, message):
        raise AssertionError(message)


@pytest.mark.parametrize("where, words", LINES, ids=[f"{where}: {' '.join(words)}"[:90] for where, words in LINES])
def test_a_command_line_can_be_typed(where, words):
    if words[:1] in (["--help"], ["--version"]) or words == ["COMMAND", "--help"]:
        return
    name = next((n for n in COMMANDS if words[:len(n.split())] == n.split()), None)
    assert name, f"{where}: hpclcae {' '.join(words)} is no command"
    rest = words[len(name.split()):]
    if "--help" in rest:
        return
    parser = Parser()
    importlib.import_module(COMMANDS[name][0]).configure(parser)
    args = parser.parse_args(rest)
    file = str(getattr(args, "configuration", ""))
    if file.startswith("run/"):
        # The file exists, and every --set is allowed; what a script puts in for a variable is not known here.
        configuration.load(ROOT / file, [change for change in args.changes if not re.search(r"=\$\w+$", change)])


def test_readme_shows_the_main_commands():
    shown = {words[0] for words in command_lines(code_lines((ROOT / "README.md").read_text())) if words}
    assert {"train", "neurons", "show"} <= shown


def test_the_quick_start_runs_every_step():
    shown = {" ".join(words[:2]) if words[0] == "data" else words[0] for where, words in LINES
             if where == "quickstart.sh"}
    assert {"data fetch", "data frames", "launch", "neurons", "figures"} <= shown


def test_the_architecture_note_names_every_module_and_the_shapes_of_the_desk():
    note = (ROOT / "notes/architecture.md").read_text()
    modules = [path for path in (ROOT / "hpclcae").rglob("*.py") if "_" != path.name[0] and path.parent.name != "bench"]
    assert [path.name for path in modules if f"{path.name}`" not in note] == []
    shapes = {shape for plan in network_geometry(configuration.load(RUN / "desk.toml"))
              for shape in (plan.filtered, plan.pooled, plan.output)}
    assert [shape for shape in sorted(shapes) if "x".join(map(str, shape)) not in note
            and str((*shape, 100)) not in note] == []


def test_the_reader_of_command_lines_sees_what_it_should():
    text = "words hpclcae train\n```bash\n$ hpclcae show run/x.toml  # why\n[ -f a ] || hpclcae data info 'a b' \\\n" \
           "  --sheet s.png\nmpiexec -n 2 python -m hpclcae train x --out y | tee log\n```\nhpclcae not here\n"
    assert command_lines(code_lines(text)) == [["show", "run/x.toml"], ["data", "info", "a b", "--sheet", "s.png"],
                                               ["train", "x", "--out", "y"]]
    with pytest.raises(AssertionError, match="unrecognized arguments: --speling"):
        test_a_command_line_can_be_typed("here", ["show", "run/tiny.toml", "--speling"])
