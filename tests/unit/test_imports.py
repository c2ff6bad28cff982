"""Who may import whom, and what a command may load.

A folder is a chapter: it imports from folders that stand above its own in ORDER, and modules never
import each other in a circle. Only mpi/ imports mpi4py; argparse stays in commands/ and bench/;
pictures and drawing are loaded when they are needed (errors.require).
"""
import ast
import graphlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpclcae.cli import COMMANDS
from tests.support.processes import RUN

PACKAGE = Path(__file__).parents[2] / "hpclcae"
#: The chapters in their order; config and geometry stand between the utilities and everything else.
ORDER = ["utils", "config", "geometry", "partition", "model", "data", "parameter_server",
         "checkpoint", "cluster", "training", "simulation", "mpi", "survive", "experiments",
         "commands", "bench", "cli", "__main__"]
ROW = {name: number for number, name in enumerate(ORDER)}
LIBRARIES = {"numpy", "scipy", "tqdm", "h5py", "numexpr"}  # the core's: at the top of any module
#: Of an extra: never at the top.
LAZY = {"PIL", "av", "matplotlib", "cv2", "jinja2", "sklearn", "simpy"}

FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
         for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"}
FACADES = {"config"}  # a package whose __init__ gives what its modules define
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def imported(tree):
    """Full names that are imported anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(tree):
    """The modules of this package that are imported, without the package's name."""
    found = set()
    for name in imported(tree):
        first, *rest = name.split(".")
        while first == "hpclcae" and rest and ".".join(rest) not in FILES.keys() | FACADES:
            rest.pop()
        found.add(".".join(rest) if first == "hpclcae" else "")
    return found - {""}


def outside_at_the_top(tree):
    """Libraries that are imported as soon as a module is.

    What only the type checker reads does not count.
    """
    runs = ast.Module([node for node in tree.body
                       if not isinstance(node, ast.FunctionDef | ast.ClassDef)
                       and not (isinstance(node, ast.If)
                                and ast.unparse(node.test) == "TYPE_CHECKING")], [])
    return {name.split(".")[0] for name in imported(runs)} - sys.stdlib_module_names - {"hpclcae"}


def test_every_module_has_its_place():
    assert {name.split(".")[0] for name in FILES} <= set(ROW)
    required = importlib.metadata.requires("hpclcae")
    assert {"mpi4py"} | LIBRARIES == {line.split(">")[0] for line in required
                                      if "extra" not in line}


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_from_no_chapter_below_its_own(name):
    row = ROW[name.split(".")[0]]
    below = [other for other in inside(TREES[name]) if ROW[other.split(".")[0]] > row]
    assert below == []


def test_no_import_goes_in_a_circle():
    graphlib.TopologicalSorter({name: inside(tree) for name, tree in TREES.items()}).prepare()


def test_the_check_itself_sees_an_import_from_below():
    tree = ast.parse("def later():\n"
                     "    from hpclcae.experiments import figures\n"
                     "    import hpclcae.cli\n"
                     "from hpclcae import config as c, __version__\n"
                     "from hpclcae.model.layers.windows import box_sum")
    assert inside(tree) == {"experiments.figures", "cli", "config", "model.layers.windows"}
    tree = ast.parse("import os, numpy.linalg\nfrom PIL import Image\ndef f():\n    import av")
    assert outside_at_the_top(tree) == {"numpy", "PIL"}


@pytest.mark.parametrize("name", FILES)
def test_only_commands_and_benchmarks_import_argparse(name):
    assert (name.startswith(("commands.", "bench.")) or name == "cli"
            or not any(i.split(".")[0] == "argparse" for i in imported(TREES[name])))


@pytest.mark.parametrize("name", FILES)
def test_only_mpi_imports_mpi4py_and_nothing_loads_pictures_or_plots_at_its_top(name):
    mpi = name.startswith("mpi.")
    assert mpi or not any(i.split(".")[0] == "mpi4py" for i in imported(TREES[name]))
    assert outside_at_the_top(TREES[name]) <= LIBRARIES | ({"mpi4py"} if mpi else set())


# ---- what is loaded, in real processes -----------------------------------------------------------

LOADED = """
import sys
import hpclcae
print("package", *sys.modules)
from hpclcae.cli import main
for words in WORDS:
    try:
        code = main(words)
    except SystemExit as error:
        code = error.code
    assert not code, words
    print("\\nloaded", *sys.modules)
"""


def loaded_after(*command_lines):
    """Top-level modules after importing the package, and after each of several command lines."""
    environment = {key: value for key, value in os.environ.items()
                   if not key.endswith("_NUM_THREADS")}
    process = subprocess.run([sys.executable, "-c", LOADED.replace("WORDS", repr(command_lines))],
                             text=True, capture_output=True, env=environment, timeout=120)
    assert process.returncode == 0, process.stderr
    lines = [line.split() for line in process.stdout.splitlines()
             if line.startswith(("package ", "loaded "))]
    return [{name.split(".")[0] for name in line[1:]} for line in lines]


def test_importing_the_package_and_asking_for_help_loads_neither_mpi_nor_pictures_nor_plots():
    package, *after = loaded_after(*[[*name.split(), "--help"] for name in COMMANDS])
    assert not package & ({"mpi4py"} | LIBRARIES | LAZY)
    assert len(after) == len(COMMANDS)
    assert not after[-1] & ({"mpi4py"} | LAZY)


def test_commands_that_need_neither_mpi_nor_pictures_do_not_load_them(tiny_dataset, tmp_path):
    lines = [["show", str(RUN / "tiny.toml")], ["data", "info", str(tiny_dataset)],
             ["train", str(RUN / "tiny.toml"), "--out", str(tmp_path), "--stop-at", "1", "--set",
              f"data.train={tiny_dataset}"]]
    assert not loaded_after(*lines)[-1] & ({"mpi4py"} | LAZY)


THREADS = """
import os
import hpclcae
import numpy as np, scipy.linalg.blas
a = np.ones((600, 600), np.float32)
scipy.linalg.blas.sgemm(1.0, a @ a, a)
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_a_rank_computes_with_one_thread_unless_it_is_told_otherwise():
    def threads(**variables):
        environment = {key: value for key, value in os.environ.items()
                       if not key.endswith("_NUM_THREADS")}
        return int(subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True,
                                  check=True, env=environment | variables, timeout=60).stdout)
    assert threads() == 1
    if (os.cpu_count() or 1) > 1:
        assert threads(OPENBLAS_NUM_THREADS="2") > 1
