"""Names of files as bytes, as attributes of HDF5, as what can be drawn."""
import importlib
import os

import h5py
import pytest

from hpclcae.utils.text import attribute, drawable, entitle, printable, readable, to_bytes, to_text

NAMES = [os.fsdecode(b"b\xe9b\xe9"), "caf\u00e9", "", "plain"]


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name, tmp_path):
    assert to_text(to_bytes(name)) == name
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update(one=attribute(name), several=attribute([name, "x"]))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["one"] == name and list(file.attrs["several"]) == [name, "x"]
    printable(name).encode()


def test_odd_bytes_become_escapes():
    assert printable("a\nb\0\x1b") == "a\\nb\\x00\\x1b" and readable("a\nb") == "a\nb"
    assert printable(NAMES[0]) == "b\\xe9b\\xe9" and printable("caf\u00e9") == "caf\u00e9"


def test_a_name_in_a_figure_is_short_and_no_formula():
    """The font has Latin, Greek and Cyrillic, and no Chinese."""
    pytest.importorskip("matplotlib")
    assert drawable("caf\u00e9 \u03b1 \u732b") == "caf\u00e9 \u03b1 \\u732b"
    assert drawable("faces") == "faces" and drawable("$x^{") == r"\$x^{"
    assert len(drawable("long" * 50)) == 40 and drawable("long" * 50).endswith("...")


def test_a_title_is_no_wider_than_its_figure():
    backend = pytest.importorskip("matplotlib.backends.backend_agg")
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(4.6, 3))
    entitle(figure, 6 * "test images of highest response, final half; " + "\nand below")
    drawn = figure.get_suptitle()
    assert drawn.endswith("\nand below") and drawn.count("\n") > 3
    canvas = backend.FigureCanvasAgg(figure)
    canvas.draw()
    box = figure._suptitle.get_window_extent(canvas.get_renderer())
    assert 0 <= box.x0 and box.x1 <= figure.bbox.width
