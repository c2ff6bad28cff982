"""Frames of small films that are written here."""
import os
from fractions import Fraction

import av
import numpy as np
import pytest

from hpclcae.data.decode import Undecodable
from hpclcae.data.ingest.film import frames
from tests.support.films import (COLS, RATE, ROWS, SCENE, cut_film, displayed_by, write,
                                 write_colour)

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


#: Display matrix (a, b, c, d), and what a player shows of a stored picture.
MATRICES = {(1, 0, 0, 1): lambda s: s, (-1, 0, 0, 1): lambda s: s[:, ::-1],
            (1, 0, 0, -1): lambda s: s[::-1], (-1, 0, 0, -1): lambda s: s[::-1, ::-1],
            (0, 1, -1, 0): lambda s: np.rot90(s, -1), (0, -1, 1, 0): lambda s: np.rot90(s),
            (0, 1, 1, 0): lambda s: s.swapaxes(0, 1),
            (0, -1, -1, 0): lambda s: np.rot90(s, 2).swapaxes(0, 1)}


@pytest.mark.parametrize("matrix", MATRICES)
def test_shown_by_the_display_matrix(tmp_path, matrix):
    path = displayed_by(write(tmp_path / "a.mp4", [SCENE] * 5), tmp_path / "b.mp4", matrix)
    (_, picture), = frames(path)
    assert error(picture.pixels, MATRICES[matrix](SCENE)) <= TOLERANCE
    assert picture.original == picture.pixels.shape[:2] and picture.notes == (
        () if matrix == (1, 0, 0, 1) else ("turned by its display matrix",))


def test_an_oblique_angle_is_refused(tmp_path):
    path = displayed_by(write(tmp_path / "a.mp4", [SCENE] * 5), tmp_path / "b.mp4",
                        (0.7, 0.7, -0.7, 0.7))
    with pytest.raises(Undecodable, match="oblique angle"):
        list(frames(path))


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_by_the_stated_matrix_and_range(tmp_path, matrix, full_range):
    colour = (200, 60, 40)
    (_, picture), = frames(write_colour(tmp_path / "a.mp4", colour, matrix, full_range))
    assert np.abs(picture.pixels[40, 40].astype(int) - colour).max() <= 4


def test_transparency_of_a_film_is_put_on_mid_grey(tmp_path):
    clear = np.dstack([SCENE, np.full(SCENE.shape[:2], 255, np.uint8)])
    clear[:, :COLS // 2, 3] = 0
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("png", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = COLS, ROWS, "rgba"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clear, format="rgba")))
        container.mux(stream.encode())
    (_, picture), = frames(tmp_path / "a.mov")
    assert (picture.pixels[:, :COLS // 2] == 128).all() and error(
        picture.pixels[:, COLS // 2:], SCENE[:, COLS // 2:]) == 0
    assert picture.notes == ("transparency on mid-grey",)


@pytest.mark.parametrize("count", [1, 3, 12, 100])
@pytest.mark.parametrize("every", [None, 100.0])
def test_a_live_recording_without_a_duration(tmp_path, count, every):
    path = write(tmp_path / "a.mkv", [SCENE] * count, options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    for content in (path, path.read_bytes()):
        (seconds, picture), = frames(content, every)
        assert error(picture.pixels, SCENE) <= TOLERANCE
        assert abs(RATE * seconds - count / 2) <= 1 + count / 8


def test_a_live_recording_that_is_dark_in_the_middle(tmp_path):
    dark = [BLACK if 20 < i < 40 else SCENE for i in range(60)]
    (seconds, picture), = frames(write(tmp_path / "a.mkv", dark, options={"live": "1"}))
    assert error(picture.pixels, SCENE) <= TOLERANCE and not 20 < RATE * seconds < 40


@pytest.mark.parametrize("name", [b"a:b.mp4", b"caf\xc3\xa9.mp4", b"caf\xe9.mp4"])
def test_any_name(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.mp4", [SCENE] * 5).rename(os.fsdecode(name))
    assert len(list(frames(path))) == 1


def test_what_came_before_the_damage_is_kept(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, *SCENE.shape), dtype=np.uint8)
    path = write(tmp_path / "a.mkv", [*noise])
    content = path.read_bytes()
    found = list(frames(content[:len(content) // 2], every=0.5))
    assert found and len(found) < len(list(frames(content, every=0.5)))


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


def test_one_frame_of_every_scene(tmp_path):
    film = cut_film(tmp_path / "a.mp4", [20, 30, 10])
    seconds = [at for at, _ in frames(film, scenes=True)]
    assert [int(at // 1) for at in seconds] == [0, 2, 5] or len(seconds) == 3
    assert 0 <= seconds[0] < 2 <= seconds[1] < 5 <= seconds[2] < 6
    one, = frames(cut_film(tmp_path / "b.mp4", [30]), scenes=True)  # moving is no cut
    assert one[1].pixels.std() > 12


def test_a_film_of_black_scenes_gives_what_a_film_without_scenes_gives(tmp_path):
    film = write(tmp_path / "a.mp4", [np.zeros_like(SCENE)] * 20)
    with pytest.raises(Undecodable, match="no frame shows anything"):
        list(frames(film, scenes=True))


def test_a_random_time_is_that_of_the_generator(tmp_path):
    film = write(tmp_path / "a.mp4", [SCENE] * 100)
    times = [next(frames(film, draw=np.random.default_rng(seed)))[0] for seed in (0, 0, 1, 2, 3)]
    assert times[0] == times[1] and len(set(times)) > 2
    first = np.random.default_rng(0).random()
    assert times[0] == pytest.approx(10 * first, abs=0.2)
