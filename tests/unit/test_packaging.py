"""What makes a checkout a package; tests/wheel.sh builds it and uses it from another place."""
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hpclcae import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def citation():
    """The lines ``key: value`` at the top level of CITATION.cff."""
    return dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))


def test_every_folder_of_modules_is_a_package():
    """`packages = find:` passes over a folder without __init__.py, and the wheel lacks it."""
    folders = {path.parent for path in (ROOT / "hpclcae").rglob("*.py")}
    assert len(folders) > 5
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders)
            if not (folder / "__init__.py").is_file()] == []


def test_the_citation_has_the_version_and_the_licence_of_the_package(citation):
    assert citation["version"] == __version__
    assert f"\nlicense = {citation['license']}\n" in (ROOT / "setup.cfg").read_text()
    assert (ROOT / "LICENSE").read_text().startswith("BSD 3-Clause")
    assert citation["license"] == "BSD-3-Clause"


def test_the_newest_entry_of_the_changes_is_this_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == __version__


@pytest.mark.skipif(not shutil.which("shellcheck"),
                    reason="no shellcheck here: a package of that name brings it")
def test_shellcheck_has_nothing_to_say():
    scripts = ["tests/wheel.sh", "tests/lowest.sh"]
    said = subprocess.run(["shellcheck", "--external-sources", *scripts],
                          capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (said.returncode, said.stdout) == (0, "")
