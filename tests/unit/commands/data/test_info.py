"""What ``data info`` says and draws, and ``data check`` of the same."""
import h5py
import numpy as np
import pytest
from PIL import Image

from hpclcae import cli
from hpclcae.data.dataset import Dataset
from hpclcae.data.writer import DatasetWriter

SIZE = 20


@pytest.fixture
def dataset(tmp_path):
    """Images of one level each: image i is filled with (i, 2 i, 255 - i).

    Every third is labelled 1.
    """
    path = tmp_path / "a.h5"
    with DatasetWriter(path, SIZE, 3, ["house", "faç"], {"share": 0.25},
                       licences={"orl": "credit AT&T"}) as writer:
        for i in range(60):
            source = "orl" if i < 20 else "rooms"
            image = np.broadcast_to(np.array([i, 2 * i, 255 - i], np.uint8), (SIZE, SIZE, 3))
            writer.append(image, source=f"{source}/{i}.png", group=f"{source}/{i // 2}",
                          original=(50, 50), crop=(0, 0, 50, 50), label=i % 3 - 1)
    return path


def info(*arguments):
    return cli.main(["data", "info", *map(str, arguments)])


def test_overview(dataset, capsys):
    assert info(dataset) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith(f"{dataset}: 60 images, 20 x 20 pixels, colour")
    for line in ("rooms 40 20 not stated", "orl 20 10 credit AT&T",
                 "-1 unknown 20 33.3%", "0 house 20 33.3%", "1 faç 20 33.3%",
                 "groups (persons or photographs): 30, of 2 to 2 images, median 2", "share: 0.25",
                 f"red 29.5 {np.arange(60).std():.1f}", f"green 59.0 {2 * np.arange(60).std():.1f}",
                 f"blue 225.5 {np.arange(60).std():.1f}"):
        assert line in lines
    assert "chunks of 8 x 20 x 20 x 3" in lines[1]


def test_kinds_framing_halves_and_pairs(tmp_path, capsys):
    settings = {"faces": 0.2, "heads": 0, "face_size": [0.4, 0.6], "reach": None}
    with DatasetWriter(tmp_path / "a.h5", 8, 1, ["no", "yes"], settings) as writer:
        for i in range(10):
            writer.append(np.zeros((8, 8, 1), np.uint8), source="s", group=f"s/{i // 2}", label=0,
                          original=(9, 9), crop=(0, 0, 9, 9), half=i // 6, pair=i - 1 if i in (1, 3)
                          else -1, kind="face" if i < 2 else "photograph")
    assert info(tmp_path / "a.h5") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in ("photograph 8 80.0%", "face 2 20.0%", "development 6 3", "final 4 2",
                 "framing: faces 0.40 to 0.60 of the frame, anywhere (whole)",
                 "pairs: 2, of 4 images"):
        assert line in lines
    with Dataset(tmp_path / "a.h5") as dataset:
        assert f"fingerprint {dataset.fingerprint}" in lines


def test_one_changed_image_is_named(dataset, capsys):
    assert cli.main(["data", "check", str(dataset)]) == 0
    assert "all images are as they were written" in capsys.readouterr().out
    with h5py.File(dataset, "r+") as file:
        file["images"][33, 0, 0, 0] = 99
    assert cli.main(["data", "check", str(dataset)]) == 1
    error = capsys.readouterr().err
    assert "1 of its images do not have the checksum they were written with: 33" in error
    assert "write it again with the command that made it" in error


@pytest.mark.parametrize("count, columns, rows, drawn",
                         [(9, 3, 3, 9), (7, 3, 3, 7), (100, 8, 8, 60)])
def test_sheet(dataset, tmp_path, count, columns, rows, drawn):
    sheet = tmp_path / "sheets" / "a.png"
    assert info(dataset, "--sheet", sheet, "--count", count) == 0
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape == (rows * 78, columns * 66, 3)
    middles = pixels[32::78, 32::66].reshape(-1, 3).tolist()
    numbers = [red for red, green, blue in middles[:drawn]]
    assert middles[:drawn] == [[i, 2 * i, 255 - i] for i in numbers]
    assert len(set(numbers)) == drawn and numbers == sorted(numbers)
    assert all(middle == [255, 255, 255] for middle in middles[drawn:])
    caption = pixels[64:78, :64]
    assert (caption < 100).any() and (caption == 255).any()


def test_sheet_of_a_seed(dataset, tmp_path):
    sheets = []
    for seed in (0, 0, 1):
        assert info(dataset, "--sheet", tmp_path / "a.png", "--count", 9, "--seed", seed) == 0
        sheets.append((tmp_path / "a.png").read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_grey_without_labels(tmp_path, capsys):
    with DatasetWriter(tmp_path / "a.h5", SIZE, 1) as writer:
        writer.append(np.full((SIZE, SIZE, 1), 40, np.uint8), source="a/b", group="a/b",
                      original=(9, 9), crop=(0, 0, 9, 9))
    assert info(tmp_path / "a.h5", "--sheet", tmp_path / "a.png") == 0
    out = capsys.readouterr().out
    assert "labels: none" in out and "grey" in out and "40.0" in out
    assert not {"half", "framing:", "pairs:"} & set(out.split())
    assert np.asarray(Image.open(tmp_path / "a.png"))[30, 30].tolist() == [40, 40, 40]


def test_one_clear_line(dataset, tmp_path, capsys):
    for arguments, message in (([tmp_path / "missing.h5"], "not a file"),
                               ([dataset, "--sheet", dataset / "a.png"], "a.h5")):
        assert info(*arguments) == 1
        assert message in (error := capsys.readouterr().err) and error.count("\n") == 1
    with pytest.raises(SystemExit):
        info(dataset, "--count", 0)
    assert "--count: 0; it must be at least 1" in capsys.readouterr().err


def test_a_sheet_replaces_sheets_only(dataset, tmp_path, capsys):
    for _ in range(2):
        assert info(dataset, "--sheet", tmp_path / "a.png") == 0
    content = dataset.read_bytes()
    assert info(dataset, "--sheet", dataset) == 1
    assert "is not a picture (--sheet) of ours" in capsys.readouterr().err
    assert dataset.read_bytes() == content


def classified(path, labels, names):
    with DatasetWriter(path, 8, 1, names) as writer:
        for i, label in enumerate(labels):
            writer.append(np.zeros((8, 8, 1), np.uint8), source="s", group=f"s/{i}", label=label,
                          original=(9, 9), crop=(0, 0, 9, 9))
        writer.half_seed = 0
    return path


def test_balance_of_classes(tmp_path, capsys):
    path = classified(tmp_path / "a.h5", [0] * 6 + [1] * 3 + [2], ["cat", "dog", "eel"])
    assert info(path) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "label name images development final share" in lines
    assert "0 cat 6 3 3 60.0%" in lines and "1 dog 3 1 2 30.0%" in lines
    assert ("balance: 3 classes of 1 (eel) to 6 images (cat), median 3; as varied as 2.5 equal "
            "classes; always saying cat is right in 60.0%") in lines
    assert any(line.startswith("no images in the final half: eel;") for line in lines)


def test_of_many_classes_the_largest_and_the_smallest_are_listed(tmp_path, capsys):
    labels = [label for label in range(300) for _ in range(1 + label % 5)]
    assert info(classified(tmp_path / "a.h5", labels, [f"c{i}" for i in range(300)])) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 60 and "(the 10 with most images and the 10 with few" in text
    assert "balance: 300 classes of 1 (c0) to 5 images (c4), median 3" in text
