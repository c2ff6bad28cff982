"""Labels from a file: which line means which picture, and what is wrong in one line."""
import pytest

from hpclcae.data.ingest.label_file import from_file
from hpclcae.data.ingest.walk import Entry
from hpclcae.utils.errors import InputError

PICTURES = "set/x/a.jpg", "set/y/a.jpg", "set/y/b.png"


def labels(tmp_path, content, *pictures):
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return from_file(path, [Entry(name, b"") for name in pictures or PICTURES])


def labelled(tmp_path, content, *pictures):
    """Label of each picture that has one, by name."""
    found = labels(tmp_path, content, *pictures)
    return {name: found.names[label] for name, label in found.of.items()}


@pytest.mark.parametrize("content", [
    "x/a.jpg,cat\ny/a.jpg,dog\nb.png,cat\n",
    "name,label\nset/x/a.jpg,cat\nset/y/a.jpg,dog\nset/y/b.png,cat",
    "File;Class\r\nx/a;cat\r\ny/a;dog\r\n\r\nb;cat\r\n",
    b"\xef\xbb\xbfx\\a.jpg\tcat\n./y/a.jpg\tdog\nb\tcat\n",
    "name,label\nx/a,cat\ny/a,dog\nb,\"cat\"\n".encode("utf-16")])
def test_a_name_is_as_much_of_the_end_of_a_path_as_is_needed(tmp_path, content):
    assert labelled(tmp_path, content) == {"set/x/a.jpg": "cat", "set/y/a.jpg": "dog",
                                           "set/y/b.png": "cat"}


def test_names_of_any_encoding_and_form(tmp_path):
    found = labels(tmp_path, b"a,caf\xe9\nb.png,caf\xc3\xa9\n" + "c,cafe\u0301".encode(),
                   "s/a.jpg", "s/b.png", "s/c.png")
    assert found.names == ["caf\\xe9", "caf\u00e9"]
    assert list(found.of.values()) == [0, 1, 1]


def test_numbers_are_in_their_own_order(tmp_path):
    found = labels(tmp_path, "x/a,10\ny/a,9\nb,100\n")
    assert found.names == ["9", "10", "100"] and found.of["set/x/a.jpg"] == 1


def test_pictures_without_a_line_and_lines_without_a_picture(tmp_path):
    found = labels(tmp_path, "x/a,cat\nz,cat\nb,dog\n")
    assert set(found.of) == {"set/x/a.jpg", "set/y/b.png"}
    assert "1 of 3 names were not found: z" in found.text


@pytest.mark.parametrize("content, message", [
    ("x/a,cat\nb\n", "line 2 has 1 columns"),
    ("x/a,cat\nb,dog,1\n", "line 2 has 3 columns"),
    ("x/a,cat\nb, \n", "line 2 has no label"),
    ("x/a,cat\n,dog\n", "line 2 has no name"),
    ("x/a,cat\nx/a,dog\n", "line 2 labels x/a 'dog', a line before it 'cat'"),
    ("x/a,0\nb,-1\n", "b has label -1; labels that are numbers go from 0 to"),
    (f"x/a,0\nb,{2**31}\n", "b has label 2147483648; .* go from 0 to"),
    ("a,cat\n", "a is the name of set/x/a.jpg and of set/y/a.jpg: write more"),
    ("p,cat\nq,dog\n", "none of its 2 names .* it has p, a picture is set/x/a.jpg"),
    ("", "has no labels"), ("name,label\n", "has no labels"),
    (b"\x89PNG\r\n\x1a\n\0\0", "line 1 (has 1 columns|cannot be read)")])
def test_what_is_wrong_is_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        labels(tmp_path, content)
    assert "\n" not in str(caught.value) and "labels.csv" in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        from_file(tmp_path / "none.csv", [])
