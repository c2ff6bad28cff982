"""A picture of a partition.

It shows all blocks of a grid, and what one of them needs for every sublayer of a stage.
"""
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpclcae.config import Config
from hpclcae.geometry import network_geometry
from hpclcae.partition.blocks import (ExchangePlan, Grid, Rectangle, Span, check_grid, plan_block,
                                      shares)
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import check_picture, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BLOCKS = 200  # along a side of a picture
#: Orange and blue: told apart by colour-blind people, too.
OWNED, BORROWED, LINES = "#d95f02", "#7fb2e5", "#b0b0b0"
#: Each array, and what it is needed for.
SUBLAYERS = {"x": ("input x", "to filter z"), "z": ("filtered z", "to pool h"),
             "h": ("pooled h", "for the mean in g"), "g": ("centred g", "for the divisor of y")}


def write(config: Config, grid: Grid, path: Path, stage: int = 0, rank: int | None = None) -> None:
    """Draw the partition into a PNG file; by default a block in the upper left third is looked at.

    Raises
    ------
    InputError
        The grid does not fit, there is no such stage or block, or matplotlib is missing.
    """
    if not 0 <= stage < len(config.stages):
        raise InputError(f"there is no stage {stage + 1}: the configuration has "
                         f"{len(config.stages)}")
    check_grid(config, grid)
    if max(grid.rows, grid.cols) > MOST_BLOCKS:
        raise InputError(f"grid {grid} has too many blocks for a picture: use at most "
                         f"{MOST_BLOCKS} rows and columns of blocks")
    if rank is None:
        rank = grid.rows // 3 * grid.cols + grid.cols // 3
    if not 0 <= rank < grid.size:
        raise InputError(f"there is no block {rank}: grid {grid} has the blocks 0 to "
                         f"{grid.size - 1}")
    require("matplotlib", "figures", "drawing")
    check_picture(path, "--partition")
    figure = draw(config, grid, stage, rank)
    save_figure(figure, path, 150)


def draw(config: Config, grid: Grid, stage: int, rank: int) -> "Figure":
    """The whole input with all its blocks on the left.

    On the right every array around one block, all at one scale.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    check_grid(config, grid)
    geometry = network_geometry(config)
    rows_of_all, cols_of_all = (shares(config.stages, geometry, axis, parts)
                                for axis, parts in ((0, grid.rows), (1, grid.cols)))
    plan = plan_block(rows_of_all, cols_of_all, grid, rank).stages[stage]
    along = rows_of_all[stage], cols_of_all[stage]
    names = list(SUBLAYERS) if config.stages[stage].lcn else ["x", "z"]
    half = len(names) // 2
    figure = Figure(figsize=(7 + 4 * half, 8.2), layout="constrained")
    row, col = grid.coords(rank)
    figure.suptitle(f"stage {stage + 1} on {grid} blocks: what block {rank} (row {row}, column "
                    f"{col}) owns and needs", fontsize=14)
    panels = figure.subplot_mosaic([["all", *names[:half]], ["all", *names[half:]]],
                                   width_ratios=[2, *[1] * half])
    span = max(8, *(max(getattr(plan, name).held.shape) for name in names)) * 1.5
    for name in names:
        rows, cols = (getattr(share, name).owned for share in along)
        part: ExchangePlan = getattr(plan, name)
        array, purpose = SUBLAYERS[name]
        borrowed = sum(received.positions.size for received in part.recv)
        _draw_blocks(panels[name], rows, cols, part)
        _look_at(panels[name], part.held, span)
        panels[name].set_title(f"{array}, {rows[-1][1]} x {cols[-1][1]}, {purpose}\nowns "
                               f"{_size(part.owned)}, needs {_size(part.needed)}:\n{borrowed} "
                               f"positions from {len(part.recv)} blocks", fontsize=10)
        if name == "x":
            _draw_blocks(panels["all"], rows, cols, part)
            panels["all"].set(xlim=(0, cols[-1][1]), ylim=(rows[-1][1], 0), xlabel="col",
                              ylabel="row", title=f"{array}, owned by {grid.size} blocks")
    panels["all"].legend(
        handles=[Patch(color=OWNED, label="owned"), Patch(color=BORROWED, label="borrowed"),
                 Patch(facecolor="none", edgecolor="black", label="needed")], loc="lower left")
    return figure


def _draw_blocks(axes: "Axes", rows: tuple[Span, ...], cols: tuple[Span, ...],
                 part: ExchangePlan) -> None:
    """The borders of all blocks, and one block's rectangles."""
    bottom, right = rows[-1][1], cols[-1][1]
    axes.hlines([*(start for start, _ in rows), bottom], 0, right, LINES, linewidth=0.8)
    axes.vlines([*(start for start, _ in cols), right], 0, bottom, LINES, linewidth=0.8)
    for received in part.recv:
        _draw_rectangle(axes, received.positions,
                        facecolor=BORROWED, edgecolor="white", linewidth=1)
    _draw_rectangle(axes, part.owned, facecolor=OWNED, edgecolor="white", linewidth=1)
    _draw_rectangle(axes, part.needed, facecolor="none", edgecolor="black", linewidth=1.6)
    axes.set_aspect("equal")


def _look_at(axes: "Axes", held: Rectangle, span: float) -> None:
    """Show `span` positions around the middle of a rectangle."""
    row, col = sum(held.rows) / 2, sum(held.cols) / 2
    axes.set(xlim=(col - span / 2, col + span / 2), ylim=(row + span / 2, row - span / 2))


def _draw_rectangle(axes: "Axes", positions: Rectangle, **style: Any) -> None:
    from matplotlib.patches import Rectangle as Drawn
    height, width = positions.shape
    axes.add_patch(Drawn((positions.cols[0], positions.rows[0]), width, height, zorder=2, **style))


def _size(positions: Rectangle) -> str:
    return f"{positions.shape[0]} x {positions.shape[1]}"
