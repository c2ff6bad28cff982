"""Several processes find what one finds; each holds its own part of the images and neurons."""
from dataclasses import fields

import numpy as np
import pytest

from hpclcae.checkpoint.trained import Model
from hpclcae.config import StageConfig
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import neurons
from hpclcae.experiments.filters import filter_shape
from hpclcae.experiments.neurons import Examination, Settings
from hpclcae.experiments.ranks import Ranks, check_ranks
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import STAGES, write_run

SETTINGS = Settings(batch=7, filters=9, random_seeds=1, bootstrap=100)
TOP = StageConfig(receptive_field=3, maps=2, pooling=1, lcn=0)  # one position: of one block


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("ranks"), (*STAGES, TOP))


def examined(run, ranks=Ranks()):
    """Stages and rows, on this process; each opens the files by itself."""
    with Dataset(run.parent / "test.h5") as test, Dataset(run.parent / "train.h5") as train:
        images = neurons.labelled_images(test, SETTINGS)
        examination = Examination(test, images, train, SETTINGS, ranks)
        return examination.compare(ranks.load(str(run)))


@pytest.fixture(scope="module")
def alone(run):
    return examined(run)


def same(one, other):
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if hasattr(mine, "__dataclass_fields__"):
            same(mine, theirs)
        elif mine is not None:
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, err_msg=field.name)


@pytest.mark.parametrize("size, grid", [(3, Grid(1, 1)), (2, Grid(2, 1)), (4, Grid(1, 2)),
                                        (12, Grid(12, 1))])
def test_several_processes_find_what_one_finds(run, alone, size, grid):
    def program(world):
        network = world.split(world.rank // grid.size)
        return examined(run, Ranks(world, network, grid))
    for stages, rows in run_blocks(size, program):
        for stage, expected in zip(stages, alone[0], strict=True):
            same(stage, expected)
        assert [row.name for row in rows] == [row.name for row in alone[1]]
        for row, expected in zip(rows, alone[1]):
            np.testing.assert_allclose(row.values, expected.values, rtol=1e-9)
            np.testing.assert_allclose(row.replicates, expected.replicates, rtol=1e-9)


def test_a_block_has_a_part_of_the_neurons(run):
    def program(world):
        ranks = Ranks(world, world.split(0), Grid(2, 1))
        return [part.own for part in ranks.parts(ranks.load(str(run)))]
    one, other = run_blocks(2, program)
    whole = Ranks().parts(Model.load(run))
    for mine, theirs, everyone in zip(one, other, whole):
        assert np.array_equal(np.sort(np.append(mine, theirs)), everyone.own)
        assert 0 < mine.size < everyone.own.size or everyone.own.size == TOP.maps


def test_filters_of_all_blocks_are_measured_as_one_stage(run):
    def program(world):
        ranks = Ranks(world, world.split(0), Grid(12, 1))  # some blocks have none
        return filter_shape(ranks.load(str(run)).filters(0), 3, ranks.network)
    assert run_blocks(12, program) == [filter_shape(Model.load(run).filters(0), 3)] * 12


class Somewhere:
    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@pytest.mark.parametrize("count, batch, size", [(120, 7, 3), (5, 100, 4), (100, 100, 1)])
def test_every_image_is_looked_at_once(count, batch, size):
    seen = np.zeros(count, int)
    for rank in range(size):
        parts = Ranks(Somewhere(rank, size)).batches(count, batch)
        assert parts and all(0 < part.stop - part.start <= batch for part in parts)
        for part in parts:
            seen[part] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("fails", [False, True])
def test_what_the_first_process_finds_or_fails_with_is_that_of_all(fails):
    looked = []

    def look():
        looked.append(1)
        if fails:
            raise InputError("no such file")
        return ["found"]

    def program(world):
        try:
            return Ranks(world, world.split(world.rank)).by_first(look)
        except InputError as error:
            return str(error)
    assert run_blocks(3, program) == ["no such file" if fails else ["found"]] * 3
    assert len(looked) == 1


def test_what_cannot_be_dealt_out_is_one_line():
    with pytest.raises(InputError, match="2 images for 3 processes: start fewer"):
        Ranks(Somewhere(0, 3)).batches(2, 100)
    with pytest.raises(InputError, match="--grid 2x1 has 2 blocks, and 3 processes cannot be"):
        check_ranks(3, Grid(2, 1))


def test_no_more_than_two_batches_are_held(run, monkeypatch):
    """However many images there are: those that were read and not yet forgotten are counted."""
    import weakref

    from hpclcae.experiments import training_images
    held, most, read = weakref.WeakSet(), [0], training_images.read

    class Pixels(np.ndarray):
        """An array that can be referred to weakly, and by identity."""
        __hash__ = object.__hash__

    def counted(dataset, places):
        pixels = read(dataset, places).view(Pixels)
        held.add(pixels)
        most[0] = max(most[0], sum(map(len, held)))
        return pixels
    monkeypatch.setattr(training_images, "read", counted)
    with Dataset(run.parent / "test.h5") as test:
        images = neurons.labelled_images(test, SETTINGS)
        Examination(test, images, None, SETTINGS).trained("stages", Model.load(run))
    assert SETTINGS.batch <= most[0] <= 2 * SETTINGS.batch < images.index.size
