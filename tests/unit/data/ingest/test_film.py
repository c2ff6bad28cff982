"""Frames of small films that are written here."""
from fractions import Fraction

import av
import numpy as np
import pytest

from hpclcae.data.decode import Undecodable
from hpclcae.data.ingest.film import frames
from tests.support.films import COLS, RATE, ROWS, SCENE, write

BLACK = np.zeros_like(SCENE)
TOLERANCE = 16  # of the codec


def error(pixels, expected):
    assert pixels.shape == expected.shape and pixels.dtype == np.uint8
    return np.abs(pixels.astype(int) - expected).max()


def test_one_frame_from_the_middle(tmp_path):
    marked = [np.full_like(SCENE, 5 * i) // 2 + SCENE // 2 for i in range(21)]
    path = write(tmp_path / "a.mp4", marked)
    for content in (path, path.read_bytes()):
        (seconds, picture), = frames(content)
        assert seconds == pytest.approx(1.1, abs=0.11)
        assert error(picture.pixels, marked[round(seconds * RATE)]) <= TOLERANCE
        assert picture.original == (ROWS, COLS) and picture.notes == ()


@pytest.mark.parametrize("dark", [(0, 14, 20), (6, 20, 20), (3, 17, 20)])
def test_a_black_middle_is_passed_over(tmp_path, dark):
    first, last, count = dark
    path = write(tmp_path / "a.mp4", [BLACK if first <= i < last else SCENE for i in range(count)])
    (seconds, picture), = frames(path)
    assert error(picture.pixels, SCENE) <= TOLERANCE and not first <= round(seconds * RATE) < last


def test_nothing_but_black_or_one_colour(tmp_path):
    red = BLACK + np.array([250, 0, 0], np.uint8)
    for name, picture in (("black", BLACK), ("red", red)):
        with pytest.raises(Undecodable, match="no frame shows anything"):
            list(frames(write(tmp_path / f"{name}.mp4", [picture] * 10)))


def test_every_so_many_seconds(tmp_path):
    path = write(tmp_path / "a.mp4", [SCENE] * 40 + [BLACK] * 20 + [SCENE] * 20)
    found = [round(seconds, 1) for seconds, _ in frames(path, every=1.0)]
    assert found == [0.5, 1.5, 2.5, 3.5, 6.5, 7.5]
    assert len(list(frames(path, every=0.5))) == 12
    assert len(list(frames(path, every=100.0))) == 1  # shorter than that: the one frame


def test_twos_are_so_many_seconds_apart(tmp_path):
    path = write(tmp_path / "a.mp4", [SCENE] * 40 + [BLACK] * 20 + [SCENE] * 20)
    found = [round(seconds, 1) for seconds, _ in frames(path, every=1.0, later=0.3)]
    assert found == [0.5, 0.8, 1.5, 1.8, 2.5, 2.8, 3.5, 3.8, 6.5, 6.8, 7.5, 7.8]
    # the partner of 3.5 is black, that of 7.5 would come after the end
    found = [round(seconds, 1) for seconds, _ in frames(path, every=1.0, later=0.6)]
    assert found == [0.5, 1.1, 1.5, 2.1, 2.5, 3.1, 6.5, 7.1]
    assert len(list(frames(path, every=100.0, later=0.3))) == 1  # shorter: the one frame


@pytest.mark.parametrize("every", [None, 2.0])
def test_a_stream_without_a_clock(tmp_path, every):
    path = write(tmp_path / "a.m4v", [BLACK] * 30 + [SCENE] * 60, file_format="m4v")
    with av.open(str(path)) as container:
        assert container.duration is None
    found = list(frames(path, every))
    assert found and all(error(picture.pixels, SCENE) <= TOLERANCE for _, picture in found)


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"),
                    reason="this PyAV cannot write a turned film")
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_upright(tmp_path, degrees):
    (_, picture), = frames(write(tmp_path / "a.mp4", [SCENE] * 5, rotation=degrees))
    assert error(picture.pixels, np.rot90(SCENE, degrees // 90)) <= TOLERANCE
    assert picture.original == picture.pixels.shape[:2] and picture.notes == (
        "turned by its display matrix",)


def test_pixels_that_are_not_square(tmp_path):
    (_, picture), = frames(write(tmp_path / "a.mp4", [SCENE] * 5, aspect=Fraction(2, 1)))
    assert picture.pixels.shape == (ROWS, 2 * COLS, 3) and picture.notes == ("pixels made square",)


def test_damaged_films(tmp_path):
    whole = write(tmp_path / "a.mp4", [SCENE] * 20).read_bytes()
    for content in (whole[:len(whole) // 2], whole[:10], b"", b"text\n" * 99):
        with pytest.raises(Undecodable, match="damaged"):
            list(frames(content))


def test_sound_only(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp",
                                           layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(Undecodable, match="no video in it"):
        list(frames(path))


def test_random_damage_never_escapes(tmp_path):
    generator = np.random.default_rng(0)
    whole = write(tmp_path / "a.mp4", [SCENE] * 20).read_bytes()
    outcomes = set()
    for trial in range(40):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[generator.integers(len(damaged))] = generator.integers(256)
        try:
            outcomes.add(len(list(frames(bytes(damaged), [None, 0.5][trial % 2]))) > 0)
        except Undecodable as refusal:
            outcomes.add(refusal.reason)
    assert {True, "damaged"} <= outcomes
