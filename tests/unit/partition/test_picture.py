"""The picture of a partition shows what the plan says."""
import pytest

from hpclcae import config as configuration
from hpclcae.model.layout import Layout
from hpclcae.partition.blocks import Grid
from hpclcae.partition.picture import draw, write
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")
PAPER = configuration.load(RUN / "paper.toml")
GRID = Grid(13, 13)


def boxes(axes):
    """(row, col, rows, cols) of the rectangles of a panel."""
    return [(*patch.get_xy()[::-1], patch.get_height(), patch.get_width())
            for patch in axes.patches]


def box(positions):
    return positions.rows[0], positions.cols[0], *positions.shape


def test_every_sublayer_of_a_stage_shows_what_a_block_owns_borrows_and_needs():
    figure = draw(PAPER, GRID, 2, 168)
    plan = Layout(PAPER, GRID).block(168).plan.stages[2]
    panels = {axes.get_label(): axes for axes in figure.axes}
    assert set(panels) == {"all", "x", "z", "h", "g"}
    for label, axes in panels.items():
        part = plan.x if label == "all" else getattr(plan, label)
        assert boxes(axes) == [*(box(p.positions) for p in part.recv), box(part.owned),
                               box(part.needed)]
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert left <= part.held.cols[0] and part.held.cols[1] <= right
        assert top <= part.held.rows[0] and part.held.rows[1] <= bottom
    assert "owns 9 x 9, needs 27 x 27:\n648 positions from 8 blocks" in panels["x"].get_title()


def test_without_normalisation_there_are_two_sublayers_and_a_block_may_have_nothing():
    desk = configuration.load(RUN / "plain.toml")
    figure = draw(desk, Grid(32, 1), 2, 31)
    assert [axes.get_label() for axes in figure.axes] == ["all", "x", "z"]
    assert "owns 0 x 0" in figure.axes[1].get_title()


def test_the_picture_is_written_as_a_png(tmp_path):
    write(PAPER, GRID, tmp_path / "partition.png")
    with Image.open(tmp_path / "partition.png") as image:
        assert image.format == "PNG" and image.width > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["partition.png"]


@pytest.mark.parametrize("words, message", [
    ({"stage": 3}, "there is no stage 4: the configuration has 3"),
    ({"rank": 169}, "there is no block 169: grid 13x13 has the blocks 0 to 168"),
    ({"grid": Grid(201, 1)}, "finer than the image")])
def test_what_is_not_there_is_refused(tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        write(**{"config": PAPER, "grid": GRID, "path": tmp_path / "partition.png"} | words)
    assert not list(tmp_path.iterdir())
