"""notes/checkpoints.md: its analysis code runs on a real run, with h5py alone."""
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint
from tests.support.saving import made, save

NOTE = (Path(__file__).parents[3] / "notes/checkpoints.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", NOTE, re.MULTILINE | re.DOTALL)

FACTS = """
import sys
assert "hpclcae" not in sys.modules and "scipy" not in sys.modules
np.savez("facts.npz", filters=filters, strength=strength, drift=drift, power=power,
         spectrum=spectrum)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_config):
    """A folder with runs/desk, which has two checkpoints.

    The code of the note has been run in it.
    """
    folder = tmp_path_factory.mktemp("place")
    state = made(tiny_config())
    save(folder / "runs/desk", state, 3)
    state.parameters.vector[:] += np.where(state.parameters.vector, 0.1, 0).astype(np.float32)
    save(folder / "runs/desk", replace(state, step=9), 2)
    unfinished = folder / "runs/desk/checkpoints/step-00000010"
    unfinished.mkdir()
    (unfinished / "model.h5").write_text("half")
    process = subprocess.run([sys.executable, "-c", "".join(BLOCKS) + FACTS], cwd=folder,
                             capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    return folder, process.stdout


def test_the_code_of_the_note_says_what_is_in_the_checkpoints(place):
    folder, printed = place
    old, new = checkpoint.saved(folder / "runs/desk/checkpoints")
    facts = np.load(folder / "facts.npz")
    with h5py.File(old / "model.h5") as one, h5py.File(new / "model.h5") as other:
        encode = other["stage1/encode"][...]
        middle = encode[encode.shape[0] // 2, encode.shape[1] // 2]
        assert np.array_equal(facts["filters"], middle)
        norms = [np.linalg.norm(middle[..., m]) for m in range(middle.shape[-1])]
        assert np.allclose(facts["strength"], norms, rtol=1e-5)
        before, after = (file["stage2/encode"][0, 0, ..., 0].ravel().astype(float)
                         for file in (one, other))
        cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        assert np.allclose(facts["drift"], [[7, 1], [9, cosine]], rtol=1e-12) and cosine < 0.999
        # Parseval
        assert facts["power"].sum() == pytest.approx(32 ** 2 * np.square(encode, dtype="f8").sum())
        assert len(facts["spectrum"]) == 5 and (facts["spectrum"] > 0).all()
    facts.close()
    lines = printed.splitlines()
    assert len(lines) == 5 and lines[0].startswith("9 20")
    assert lines[2] == "step 7: turned by 0.00 degrees"


@pytest.mark.parametrize("message",
                         ["cannot be written: ", "is missing", " instead of ", "has CRC-32 ",
                          "does not read back as it was written", "is of another run or step",
                          "two jobs write into one run folder", "no shard of owner ", "run-id",
                          "the ranks do not see the same run folder",
                          "not finished: under way, or interrupted", "use a newer hpclcae"])
def test_messages_of_the_recovery_guide_are_those_of_the_code(message):
    code = " ".join(path.read_text() for name in ("checkpoint", "commands/checkpoint", "utils")
                    for path in (Path(checkpoint.__file__).parents[1] / name).glob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", code)  # strings that are broken over lines
    assert message in NOTE.replace("`", "")
    assert message in joined or message == "use a newer hpclcae" and "use a newer" in joined
