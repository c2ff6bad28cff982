"""The commands that the project tells people to type can be typed.

Every line with ``hpclcae`` in a code block of README.md and the notes, in the scripts of run/ and
in the command table's examples is read by the parser of its command; configurations and keys that
it names exist.
"""
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


def test_the_architecture_note_names_every_module_and_the_shapes_of_the_desk():
    note = (ROOT / "notes/architecture.md").read_text()
    modules = [path for path in (ROOT / "hpclcae").rglob("*.py")
               if path.name[0] != "_" and path.parent.name != "bench"]
    assert [path.name for path in modules if f"{path.name}`" not in note] == []
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
