"""What may be written where, seen before the work."""
import json
import os
import zlib

import pytest
from PIL import Image

from hpclcae.utils.errors import InputError
from hpclcae.utils.files import PNG_MARK, check_output, check_picture, is_json, save_figure
from tests.support.pictures import encode, scene


def never(path):
    return False


def test_new_empty_and_own_files_may_be_written(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "own").write_bytes(b"own")
    for name, is_ours in (("new", never), ("empty", never), ("own", lambda path: True),
                          ("made/on/the/way", never)):
        check_output(tmp_path / name, is_ours, "a thing")
    assert sorted(os.listdir(tmp_path)) == ["empty", "own"]


def test_what_is_not_ours_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"somebody's")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("file", "exists and is not a thing of ours"), (".", "it is a folder"),
                        ("dangling", "not a regular file"), ("pipe", "not a regular file"),
                        ("file/new", "is not a folder; choose another folder")):
        with pytest.raises(InputError, match=words):
            check_output(tmp_path / name, never, "a thing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="may not be written to"):
        check_output(tmp_path / "new", never, "a thing")


def test_pictures_of_ours_are_told_from_others(tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([1, 2])
    for _ in range(2):
        check_picture(tmp_path / "a.png", "--plot")
        save_figure(figure, tmp_path / "a.png", 50)
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["Software"] == PNG_MARK["Software"]
    for content in (encode(scene(0), "PNG"), encode(scene(0), "JPEG"), zlib.compress(b"hpclcae")):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(InputError, match="not a picture .--plot. of ours"):
            check_picture(tmp_path / "b.png", "--plot")


@pytest.mark.parametrize("text, ours", [
    (json.dumps({"kind": "x"}, indent=1), True), ('{"kind": "x"}\n{"other": 1}\n', True),
    ('{"kind": "y"}', False), ("[1]", False), ("no json", False), ('"kind"', False)])
def test_json_of_ours(tmp_path, text, ours):
    (tmp_path / "a.json").write_text(text)
    assert is_json(tmp_path / "a.json", "kind", "x") is ours
