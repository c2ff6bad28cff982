"""The commands that the project tells people to type can be typed.

Every line with ``hpclcae`` in a code block of README.md and the notes, in the scripts of run/ and
in the command table's examples is read by the parser of its command; configurations and keys that
it names exist.
"""
import ast

import pytest

from hpclcae import config as configuration
from hpclcae.cli import COMMANDS
from hpclcae.geometry import network_geometry
from tests.support.documents import check_typed, code_lines, command_lines, script_lines
from tests.support.processes import ROOT, RUN

PAGES = [ROOT / "README.md", *sorted((ROOT / "notes").glob("*.md"))]


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


@pytest.mark.parametrize("where, words", LINES,
                         ids=[f"{where}: {' '.join(words)}"[:90] for where, words in LINES])
def test_a_command_line_can_be_typed(where, words):
    check_typed(where, words)


def test_readme_shows_the_main_commands():
    shown = {words[0] for words in command_lines(code_lines((ROOT / "README.md").read_text()))
             if words}
    assert {"train", "neurons", "show"} <= shown


def test_the_quick_start_runs_every_step():
    shown = {" ".join(words[:2]) if words[0] == "data" else words[0] for where, words in LINES
             if where == "quickstart.sh"}
    assert {"data fetch", "data frames", "launch", "neurons", "figures"} <= shown


def test_the_architecture_note_names_every_folder():
    note = (ROOT / "notes/architecture.md").read_text()
    package = ROOT / "hpclcae"
    folders = [path.parent.relative_to(package) for path in package.rglob("__init__.py")]
    assert [folder for folder in folders if f"`{folder}/`" not in note and folder.name] == []
    assert [path.name for path in package.glob("[!_]*.py") if f"`{path.name}`" not in note] == []


@pytest.mark.parametrize("init", sorted((ROOT / "hpclcae").rglob("*/__init__.py")),
                         ids=lambda path: path.parent.name)
def test_a_folder_names_every_module_in_it_and_the_one_to_begin_with(init):
    text = ast.get_docstring(ast.parse(init.read_text()))
    named = {line.split()[0] for line in text.splitlines() if line.startswith("    ")}
    there = {path.name for path in init.parent.glob("*.py")} - {"__init__.py"}
    assert there <= named
    assert "An outsider begins with " in text


@pytest.mark.parametrize("page", [*PAGES, ROOT / "slurm/README.md", ROOT / "CHANGELOG.md"],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_a_note_is_longer_than_120_columns(page):
    lines = page.read_text().splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > 120] == []


def test_the_architecture_note_has_the_shapes_of_the_desk():
    note = (ROOT / "notes/architecture.md").read_text()
    shapes = {shape for plan in network_geometry(configuration.load(RUN / "desk.toml"))
              for shape in (plan.filtered, plan.pooled, plan.output)}
    assert [shape for shape in sorted(shapes) if "x".join(map(str, shape)) not in note
            and str((*shape, 100)) not in note] == []


def test_the_reader_of_command_lines_sees_what_it_should():
    text = ("words hpclcae train\n```bash\n$ hpclcae show run/x.toml  # why\n"
            "[ -f a ] || hpclcae data info 'a b' \\\n  --sheet s.png\n"
            "mpiexec -n 2 python -m hpclcae train x --out y | tee log\n```\nhpclcae not here\n")
    assert command_lines(code_lines(text)) == [["show", "run/x.toml"],
                                               ["data", "info", "a b", "--sheet", "s.png"],
                                               ["train", "x", "--out", "y"]]
    with pytest.raises(AssertionError, match="unrecognized arguments: --speling"):
        check_typed("here", ["show", "run/tiny.toml", "--speling"])
