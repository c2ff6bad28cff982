"""A picture of a partition: all blocks of a grid, and what one of them needs for every sublayer of a stage."""
from pathlib import Path
from typing import TYPE_CHECKING

from hpclcae.config import Config
from hpclcae.errors import InputError, require
from hpclcae.files import replacing
from hpclcae.partition import ExchangePlan, Grid, Rectangle, plan_block, shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWNED, BORROWED, LINES = "#d95f02", "#7fb2e5", "#b0b0b0"  # orange and blue: told apart by colour-blind people, too
#: Array, and what its needed rectangle is needed for.
SUBLAYERS = {"x": ("input x", "filters of z"), "z": ("filtered z", "pooling windows of h"),
             "h": ("pooled h", "mean around g"), "g": ("centred g", "divisor of y")}


def write(config: Config, grid: Grid, path: Path, stage: int = 0, rank: int | None = None) -> None:
    """Draw the partition into a PNG file; by default a block in the upper left third is looked at.

    Raises
    ------
    InputError
        The grid does not fit, there is no such stage or block, or matplotlib is missing.
    """
    if not 0 <= stage < len(config.stages):
        raise InputError(f"there is no stage {stage + 1}: the configuration has {len(config.stages)}")
    if rank is None:
        rank = grid.rows // 3 * grid.cols + grid.cols // 3
    if not 0 <= rank < grid.size:
        raise InputError(f"there is no block {rank}: grid {grid} has the blocks 0 to {grid.size - 1}")
    require("matplotlib", "figures", "drawing")
    figure = draw(config, grid, stage, rank)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def draw(config: Config, grid: Grid, stage: int, rank: int) -> "Figure":
    """The whole input with all its blocks on the left, every array around one block on the right."""
    from matplotlib.figure import Figure
    plan = plan_block(config, grid, rank).stages[stage]
    owned = [[[share.owned for share in along[stage][:4]] for along in (shares(config, axis, parts),)][0]
             for axis, parts in ((0, grid.rows), (1, grid.cols))]
    shown = [name for name in SUBLAYERS if name in "xz" or config.stages[stage].lcn]
    figure = Figure(figsize=(15, 8.2), layout="constrained")
    figure.suptitle(f"stage {stage + 1} on {grid} blocks: what block {rank} (row {grid.place(rank)[0]}, column "
                    f"{grid.place(rank)[1]}) owns, and what it borrows", fontsize=14)
    panels = figure.subplot_mosaic([["all", *shown[0::2]], ["all", *shown[1::2]]],
                                   width_ratios=[2, *[1] * len(shown[0::2])])
    for place, (name, (array, purpose)) in enumerate(SUBLAYERS.items()):
        if name not in shown:
            continue
        rows, cols = owned[0][place], owned[1][place]
        part: ExchangePlan = getattr(plan, name)
        _blocks(panels[name], rows, cols, part)
        _zoom(panels[name], part, rows[-1][1], cols[-1][1])
        borrowed = sum(p.positions.size for p in part.borrowed)
        panels[name].set_title(f"{array}, {rows[-1][1]} x {cols[-1][1]}, for the {purpose}\nowns {_size(part.owned)}, "
                               f"needs {_size(part.needed)}:\n{borrowed} positions from {len(part.borrowed)} blocks",
                               fontsize=10)
        if name == "x":
            _blocks(panels["all"], rows, cols, part)
            panels["all"].set(xlim=(0, cols[-1][1]), ylim=(rows[-1][1], 0), xlabel="col", ylabel="row",
                              title=f"{array}, owned by {grid.size} blocks")
    return figure


def _blocks(axes: "Axes", rows: "tuple[tuple[int, int], ...]", cols: "tuple[tuple[int, int], ...]",
            part: ExchangePlan) -> None:
    """The borders of all blocks, and one block's rectangles."""
    from matplotlib.patches import Patch
    bottom, right = rows[-1][1], cols[-1][1]
    axes.hlines([*(start for start, _ in rows), bottom], 0, right, LINES, linewidth=0.8)
    axes.vlines([*(start for start, _ in cols), right], 0, bottom, LINES, linewidth=0.8)
    for lent in part.borrowed:
        _rectangle(axes, lent.positions, facecolor=BORROWED, edgecolor="white", linewidth=1)
    _rectangle(axes, part.owned, facecolor=OWNED, edgecolor="white", linewidth=1)
    _rectangle(axes, part.needed, facecolor="none", edgecolor="black", linewidth=1.6)
    axes.set_aspect("equal")
    axes.legend(handles=[Patch(color=OWNED, label="owned"), Patch(color=BORROWED, label="borrowed"),
                         Patch(facecolor="none", edgecolor="black", label="needed")], fontsize=8, loc="lower left")


def _zoom(axes: "Axes", part: ExchangePlan, rows: int, cols: int) -> None:
    """Show the neighbourhood of a block."""
    near = part.held.grown(max(8, max(part.held.shape) // 2), rows, cols)
    axes.set(xlim=near.cols, ylim=near.rows[::-1])


def _rectangle(axes: "Axes", positions: Rectangle, **style: object) -> None:
    from matplotlib.patches import Rectangle as Drawn
    height, width = positions.shape
    axes.add_patch(Drawn((positions.cols[0], positions.rows[0]), width, height, zorder=2, **style))


def _size(positions: Rectangle) -> str:
    return f"{positions.shape[0]} x {positions.shape[1]}"
