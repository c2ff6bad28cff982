"""Every experiment that ranks share finds what one process finds, on any grid.

The ranks are threads (partition/threads.py), each with its own part of the network and the images.
"""
import numpy as np
import pytest

from hpclcae.data.dataset import Dataset
from hpclcae.experiments import film, invariance_results, optimum, probing, selectivity_map
from hpclcae.experiments.invariance_results import Settings
from hpclcae.experiments.neurons import Settings as Examined
from hpclcae.experiments.neurons import labelled_images
from hpclcae.experiments.ranks import Ranks, cut
from hpclcae.experiments.scan import Neuron
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks
from tests.support.synthetic_head import write_synthetic_head
from tests.support.tiny_run import write_run

NEURONS = [Neuron(1, (0, 5, 2)), Neuron(2, (2, 0, 1)), Neuron(1, (5, 2, 0))]  # of several blocks
SHARED = pytest.mark.parametrize("size, grid", [(3, Grid(1, 1)), (2, Grid(2, 1)), (4, Grid(1, 2))])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def alone():
    """What one process found, by the name of the work."""
    return {}


def same(run, alone, size, grid, name, work):
    """Do the work in one process, unless that has been done, and on ranks; compare every array."""
    if name not in alone:
        alone[name] = work(Ranks(), Ranks().load(str(run)))

    def program(world):
        ranks = Ranks(world, world.split(world.rank // grid.size), grid)
        return work(ranks, ranks.load(str(run)))
    for found in run_blocks(size, program):
        assert len(found) == len(alone[name])
        for mine, expected in zip(found, alone[name]):
            np.testing.assert_allclose(mine, expected, rtol=1e-7, atol=1e-9)


@SHARED
def test_responses_and_maps(run, alone, size, grid):
    def responses(ranks, model):
        with Dataset(run.parent / "test.h5") as test:
            found = probing.probe(model, NEURONS, test, 7, 0, "", ranks)
        return found.response, found.index
    same(run, alone, size, grid, "responses", responses)

    def maps(ranks, model):
        with Dataset(run.parent / "test.h5") as test:
            images = labelled_images(test, Examined())
            stages = selectivity_map.examine(model, test, images, 30, 7, 0, ranks)
        return [array for each in stages for array in (each.selectivity, each.levels, each.found)]
    same(run, alone, size, grid, "maps", maps)


@SHARED
def test_climbs_to_the_optimum(run, alone, size, grid):
    def climbs(ranks, model):
        found = optimum.find(model, NEURONS, starts=2, iterations=4, ranks=ranks)
        return found.pixels, found.response, found.shown, found.alike
    same(run, alone, size, grid, "climbs", climbs)


@SHARED
def test_views_of_faces_and_heads(run, alone, size, grid):
    pytest.importorskip("PIL.Image")
    if not (run.parent / "heads").exists():
        write_synthetic_head(run.parent / "heads/anny")
    settings = Settings(faces=3, step=6, scales=(0.8,), rotations=(90,), batch=2)

    def views(ranks, model):
        with Dataset(run.parent / "test.h5") as test:
            found = invariance_results.ask(model, NEURONS, test, settings, run.parent / "heads",
                                           ranks)
        assert [each.sweep.name for each in found.shown][-2:] == ["turn", "nod"]
        return [found.rest, *(each.response for each in found.shown)]
    same(run, alone, size, grid, "views", views)


@SHARED
def test_frames_of_a_film(run, alone, size, grid):
    films = pytest.importorskip("tests.support.films")
    path = run.parent / "made.mp4"
    if not path.exists():
        dark = films.SCENE
        bright = dark.copy()
        bright[20:30, 24:34] = 250
        films.write(path, [dark, bright, dark, dark, bright] * 2)

    def frames(ranks, model):
        track = film.follow(model, NEURONS[1], path, 0.1, (1.0, 0.5), 9, ranks)
        return track.seconds, track.response, track.top, track.left, track.side
    same(run, alone, size, grid, "frames", frames)


@pytest.mark.parametrize("pieces", [0, 1, 5, 6])
def test_results_come_in_the_order_of_the_pieces_however_few(pieces):
    def program(world):
        ranks = Ranks(world, world.split(world.rank // 2), Grid(2, 1))
        return ranks.everyones([10 * piece for piece in ranks.mine(range(pieces))])
    assert run_blocks(6, program) == [[10 * piece for piece in range(pieces)]] * 6


@pytest.mark.parametrize("count, batch, groups", [(0, 4, 2), (3, 4, 5), (9, 4, 2), (9, 100, 4)])
def test_a_cut_leaves_nothing_out_and_no_group_without(count, batch, groups):
    parts = cut(count, batch, groups)
    assert [n for part in parts for n in range(part.start, part.stop)] == list(range(count))
    assert all(0 < part.stop - part.start <= batch for part in parts)
    assert len(parts) >= min(count, groups)
