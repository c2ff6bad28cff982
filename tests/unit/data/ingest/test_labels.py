"""Which folder gives the label, and what is said about it before the work."""
import pytest

from hpclcae.data.ingest.labels import from_folders
from hpclcae.data.ingest.walk import Entry
from hpclcae.utils.errors import InputError


def labelled(*names, concept=None, level=None):
    """Label of each file, by name."""
    found = [Entry(name, b"") for name in names]
    labels = from_folders(found, concept, level)
    return {entry.name: labels.names[labels.of[entry.folders]] for entry in found}


def text(*names, **options):
    return from_folders([Entry(name, b"") for name in names], options.get("concept"),
                        options.get("level")).text


def test_the_folder_below_the_source_at_any_depth():
    assert labelled("set/cats/a.jpg", "set/cats/kittens/b.jpg", "set/dogs/images/c.jpg") == {
        "set/cats/a.jpg": "cats", "set/cats/kittens/b.jpg": "cats", "set/dogs/images/c.jpg": "dogs"}


def test_sources_that_are_classes():
    assert labelled("cats/a.jpg", "dogs/b.jpg") == {"cats/a.jpg": "cats", "dogs/b.jpg": "dogs"}
    assert labelled("n01/images/a.jpg", "n02/images/b.jpg") == {
        "n01/images/a.jpg": "n01", "n02/images/b.jpg": "n02"}


def test_an_archive_that_is_one_folder():
    assert labelled("a.zip/set/cats/a.jpg", "a.zip/set/dogs/b.jpg") == {
        "a.zip/set/cats/a.jpg": "cats", "a.zip/set/dogs/b.jpg": "dogs"}
    assert labelled("a.zip/cats/a.jpg", "a.zip/dogs/b.jpg") == {
        "a.zip/cats/a.jpg": "cats", "a.zip/dogs/b.jpg": "dogs"}
    mixed = labelled("set/cats/a.jpg", "b.tar.gz/top/cats/b.jpg", "b.tar.gz/top/dogs/c.jpg")
    assert list(mixed.values()) == ["cats", "cats", "dogs"]
    assert set(labelled("set/cats.zip/a.jpg", "set/cats/b.jpg").values()) == {"cats"}


def test_the_level_that_the_user_names():
    names = "set/train/cats/a.jpg", "set/val/cats/b.jpg", "set/val/dogs/x/c.jpg", "set/d.jpg"
    assert list(labelled(*names).values()) == ["train", "val", "val", "set"]
    assert list(labelled(*names, level=2).values()) == ["cats", "cats", "dogs", "set"]
    assert set(labelled(*names, level=0).values()) == {"set"}


@pytest.mark.parametrize("names, with_concept", [
    (("set/faces/child/a.jpg", "set/other/b.jpg"), 1),
    (("set/faces/child/a.jpg", "set/other/b.jpg", "other/c.jpg"), 1),
    (("faces/Ann/a.jpg", "faces/Bob/b.jpg", "other/c.jpg"), 2),
    (("set/x/faces/a.jpg", "set/x/other/b.jpg", "more/faces/c.jpg", "more/other/d.jpg"), 2),
    (("faces/faces/a.jpg", "faces/other/b.jpg"), 1),
    (("a.zip/top/faces/a.jpg", "a.zip/top/other/b.jpg", "faces.tar/c.jpg"), 2)])
def test_all_below_a_folder_with_the_name_of_the_concept(names, with_concept):
    labels = labelled(*names, concept="faces")
    assert set(labels.values()) == {"faces", "not faces"}
    assert list(labels.values()).count("faces") == with_concept


def test_names_are_compared_in_one_unicode_form():
    for concept in ("caf\u00e9", "cafe\u0301", "caf\u00e9/"):
        assert list(labelled("set/caf\u00e9/a.jpg", "set/cafe\u0301/b.jpg", "set/tea/c.jpg",
                             concept=concept).values()) == ["caf\u00e9"] * 2 + ["not caf\u00e9"]
    assert list(labelled("set/caf\u00e9/a.jpg", "set/cafe\u0301/b.jpg",
                         "set/tea/c.jpg").values()) == ["caf\u00e9", "caf\u00e9", "tea"]


@pytest.mark.parametrize("concept, hint", [
    ("Faces", "near: faces"), ("face", "near: faces"), ("set/faces", "near: faces"),
    ("zebra", "there are set, other, faces")])
def test_a_concept_that_cannot_be_meant_is_a_line_with_near_names(concept, hint):
    with pytest.raises(InputError, match=f"--concept {concept}: no image .*{hint}"):
        labelled("set/faces/a.jpg", "set/other/b.jpg", "set/other/c.jpg", concept=concept)


def test_a_concept_at_two_levels_is_for_the_user_to_decide():
    names = "set/faces/a.jpg", "set/other/faces/b.jpg", "set/other/c.jpg"
    with pytest.raises(InputError, match="1: set/faces, 2: set/other/faces.*--label-level"):
        labelled(*names, concept="faces")
    assert list(labelled(*names, concept="faces", level=1).values()) == [
        "faces", "not faces", "not faces"]
    with pytest.raises(InputError, match="at level 3"):
        labelled(*names, concept="faces", level=3)


def test_the_table_says_what_is_labelled_how():
    rows = [line.split() for line in text("set/faces/a.jpg", "set/faces/child/b.jpg",
                                          "set/other/c.jpg", concept="faces").splitlines()]
    assert ["not", "faces", "1", "set/other"] in rows
    assert ["faces", "2", "set/faces,", "set/faces/child"] in rows
    many = text(*(f"set/c{i:03d}/a.jpg" for i in range(100)))
    assert len(many.splitlines()) == 23 and "and 80 more labels with 80 files" in many
    assert "set/x0, set/x1, set/x2 and 97 more" in text(
        "set/faces/a.jpg", *(f"set/x{i}/a.jpg" for i in range(100)), concept="faces")
    assert "every file gets the label top" in text("set/top/cats/a.jpg", "set/top/dogs/b.jpg")


def test_any_number_of_classes():
    labels = labelled(*(f"set/c{i:05d}/a.jpg" for i in range(22000)))
    assert len(set(labels.values())) == 22000 and labels["set/c21999/a.jpg"] == "c21999"
