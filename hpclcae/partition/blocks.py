"""Who owns and who needs what when one network is spread over a grid (notes/partition.md).

A block of a Py x Px grid owns a rectangle of every array of every stage: of the input x, of the
filtered z, the pooled h, the centred g, the output y and of what is passed on, c (names as in
notes/equations.md). To
compute what it owns of the next array it needs a larger rectangle of this one. Where needed meets
what others own lies an exchange:

* **fill** (the ghost update): owners copy to those who need;
* **fold** (the ghost sum): what those have computed for the owner is summed there. It is the
  adjoint of fill.

Rows and columns do not depend on each other, so everything is worked out along one axis first;
rectangles are products. Positions are always those of the whole array. A plan is data: halo.py
carries it out.
"""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpclcae.config import Config, StageConfig
from hpclcae.geometry import StageGeometry
from hpclcae.utils.errors import InputError, shown

Span = tuple[int, int]  # positions start <= p < stop
#: The arrays of a stage that blocks exchange; an exchange's tag counts them, stage by stage.
ARRAYS = "xzhgy"


# ---- along one axis ------------------------------------------------------------------------------

def split(size: int, parts: int, index: int) -> Span:
    """The positions of part `index` when `size` positions are cut evenly.

    The first parts are one longer; where there are more parts than positions the last ones have
    none.
    """
    each, longer = divmod(size, parts)
    start = index * each + min(index, longer)
    return start, start + each + (index < longer)


def reach(outputs: Span, window: int, stride: int = 1) -> Span:
    """The inputs of `outputs` when output p reads `window` positions from p * stride on."""
    start, stop = outputs
    return start * stride, (stop - 1) * stride + window if stop > start else start * stride


def meet(a: Span, b: Span) -> Span:
    """What two spans have in common; stop <= start if nothing."""
    return max(a[0], b[0]), min(a[1], b[1])


class Share(NamedTuple):
    """One array along one axis: the positions that each block owns, and those that it needs."""
    owned: tuple[Span, ...]
    needed: tuple[Span, ...]

    def send(self, index: int) -> list[tuple[int, Span]]:
        """What block `index` owns and others (or itself) need: (who needs it, positions)."""
        return _meetings(self.owned[index], self.needed)

    def recv(self, index: int) -> list[tuple[int, Span]]:
        """What block `index` needs: (who owns it, positions)."""
        return _meetings(self.needed[index], self.owned)


class StageShares(NamedTuple):
    """The arrays of one stage along one axis; what is needed of c is the next stage's x.needed."""
    x: Share
    z: Share
    h: Share
    g: Share
    y: Share
    c: tuple[Span, ...]


def shares(settings: Sequence[StageConfig], geometry: Sequence[StageGeometry], axis: int,
           parts: int) -> list[StageShares]:
    """Every stage along one axis (0: rows, 1: columns) that is cut into `parts` blocks."""
    stages: list[StageShares] = []
    owned = _cut(geometry[0].input[axis], parts)
    for stage, shape in zip(settings, geometry):
        stages.append(_stage_shares(stage, shape, axis, owned))
        owned = stages[-1].c
    return stages


def _stage_shares(stage: StageConfig, shape: StageGeometry, axis: int,
                  x: tuple[Span, ...]) -> StageShares:
    nothing = ((0, 0),) * len(x)
    z, h = _cut(shape.filtered[axis], len(x)), _cut(shape.pooled[axis], len(x))
    g = y = h
    h_needed = g_needed = nothing
    if stage.lcn and stage.lcn_border == "same":
        h_needed = g_needed = _around(h, stage.lcn // 2, shape.pooled[axis])
    elif stage.lcn:
        half, size = stage.lcn // 2, shape.pooled[axis] - stage.lcn + 1
        g = y = _centred(h, half, size)
        h_needed = tuple(reach(span, stage.lcn) for span in g)
        if stage.lcn_border == "valid":
            y = _centred(g, half, shape.output[axis])
            g_needed = tuple(reach(span, stage.lcn) for span in y)
        elif stage.lcn_border == "clip":
            g_needed = _around(y, half, size)
    c, y_needed = y, nothing
    if stage.window:
        c = _cut(shape.passed_on[axis], len(x))
        y_needed = tuple(reach(span, stage.window, stage.window_stride) for span in c)
    return StageShares(
        Share(x, tuple(reach(span, stage.receptive_field, stage.stride) for span in z)),
        Share(z, tuple(reach(span, stage.pooling, stage.pooling_stride) for span in h)),
        Share(h, h_needed), Share(g, g_needed), Share(y, y_needed), c)


def _cut(size: int, parts: int) -> tuple[Span, ...]:
    return tuple(split(size, parts, i) for i in range(parts))


def _centred(owned: tuple[Span, ...], half: int, size: int) -> tuple[Span, ...]:
    """Outputs stay with the input at the centre of their window, `half` positions further on."""
    return tuple((min(max(a - half, 0), size), min(max(b - half, 0), size)) for a, b in owned)


def _around(owned: tuple[Span, ...], half: int, size: int) -> tuple[Span, ...]:
    """What the windows around these positions read, of `size` positions."""
    return tuple((max(0, a - half), min(size, b + half)) if a < b else (a, a) for a, b in owned)


def _meetings(mine: Span, theirs: Iterable[Span]) -> list[tuple[int, Span]]:
    met = ((other, meet(mine, span)) for other, span in enumerate(theirs))
    return [(other, (start, stop)) for other, (start, stop) in met if start < stop]


# ---- the grid ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Grid:
    """A grid of blocks; ranks count along rows of blocks first.

    Raises
    ------
    InputError
        It has no block.
    """
    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise InputError(f"grid {self} has no block: both numbers must be at least 1, for "
                             "instance 2x3")

    @classmethod
    def parse(cls, text: str) -> "Grid":
        """From "3x2"."""
        rows, _, cols = text.partition("x")
        if not (rows.isdecimal() and cols.isdecimal() and len(text) < 20):
            raise InputError(f"grid {shown(text)} is not understood: write ROWSxCOLUMNS of blocks, "
                             "for instance 2x3, or auto")
        return cls(int(rows), int(cols))

    @property
    def size(self) -> int:
        """Number of blocks."""
        return self.rows * self.cols

    def coords(self, rank: int) -> tuple[int, int]:
        """Row and column of a block."""
        return divmod(rank, self.cols)

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


def check_grid(config: Config, grid: Grid) -> None:
    """Refuse a grid that has blocks without a pixel.

    Raises
    ------
    InputError
        More rows or columns of blocks than of pixels. Blocks that own nothing further up are
        allowed.
    """
    if max(grid.rows, grid.cols) > config.data.size:
        raise InputError(f"grid {grid} is finer than the image of {config.data.size} x "
                         f"{config.data.size} pixels: use at most {config.data.size} rows and "
                         "columns of blocks")


# ---- one block -----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Rectangle:
    """Rows and columns of an array; one without any position is always (0, 0), (0, 0)."""
    rows: Span
    cols: Span

    def __post_init__(self) -> None:
        if self.rows[0] >= self.rows[1] or self.cols[0] >= self.cols[1]:
            object.__setattr__(self, "rows", (0, 0))
            object.__setattr__(self, "cols", (0, 0))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    @property
    def size(self) -> int:
        """Number of positions; 0 for a block that has no part of the array."""
        return self.shape[0] * self.shape[1]

    def within(self, held: "Rectangle") -> tuple[slice, slice]:
        """Where it lies in an array that holds the positions of `held`."""
        if not self.size:
            return slice(0), slice(0)
        return (slice(self.rows[0] - held.rows[0], self.rows[1] - held.rows[0]),
                slice(self.cols[0] - held.cols[0], self.cols[1] - held.cols[0]))

    def grown(self, margin: int, rows: int, cols: int) -> "Rectangle":
        """With `margin` more positions on every side, as far as an array of rows x cols goes."""
        (top, bottom), (left, right) = self.rows, self.cols
        return Rectangle((max(top - margin, 0), min(bottom + margin, rows)),
                         (max(left - margin, 0), min(right + margin, cols)))


@dataclass(frozen=True)
class Part:
    """Positions that one block owns and `peer` needs, or the other way round."""
    peer: int
    positions: Rectangle


@dataclass(frozen=True)
class ExchangePlan:
    """One block's rectangles of one array, and what it shares with which other block.

    Attributes
    ----------
    tag : int
        The same for all blocks, another for every array.
    owned, needed : Rectangle
    held : Rectangle
        The smallest that covers both: what the block's array holds.
    send : tuple of Part
        What it owns and others need, in order of rank.
    recv : tuple of Part
        What it needs and others own, in order of rank.
    """
    tag: int
    owned: Rectangle
    needed: Rectangle
    held: Rectangle
    send: tuple[Part, ...]
    recv: tuple[Part, ...]

    @property
    def own(self) -> tuple[slice, slice]:
        """Where the owned positions lie in the held array."""
        return self.owned.within(self.held)

    @property
    def read(self) -> tuple[slice, slice]:
        """Where the needed positions lie in the held array."""
        return self.needed.within(self.held)


@dataclass(frozen=True)
class StagePlan:
    """One stage of one block.

    Attributes
    ----------
    x : ExchangePlan
        Input, and the residual: needed by the filters of z.
    z : ExchangePlan
        Filtered: needed by the pooling windows of h.
    h : ExchangePlan
        Pooled. Across blocks only its mean over maps is needed, by the windows of g; without
        contrast normalisation nothing.
    g : ExchangePlan
        Centred, where the mean is defined. Across blocks only its mean square over maps is needed,
        by the divisor of y; nothing for the border "centre" and without contrast normalisation.
    y : ExchangePlan
        Output: needed by windows that are conditioned each by itself, else by none.
    c : Rectangle
        What it owns of what is passed on, and so of the next stage's x.
    """
    x: ExchangePlan
    z: ExchangePlan
    h: ExchangePlan
    g: ExchangePlan
    y: ExchangePlan
    c: Rectangle


@dataclass(frozen=True)
class BlockPlan:
    """All stages of one block of a grid."""
    grid: Grid
    rank: int
    stages: tuple[StagePlan, ...]


def plan_block(rows: Sequence[StageShares], cols: Sequence[StageShares], grid: Grid,
               rank: int) -> BlockPlan:
    """What the block of that rank owns, needs and exchanges, from the shares of all blocks."""
    stages = [_stage_plan(number, *along, grid, rank)
              for number, along in enumerate(zip(rows, cols))]
    return BlockPlan(grid, rank, tuple(stages))


def whole_stage(config: StageConfig, geometry: StageGeometry) -> StagePlan:
    """The plan of a stage that is one block by itself."""
    rows, cols = (_stage_shares(config, geometry, axis, _cut(geometry.input[axis], 1))
                  for axis in (0, 1))
    return _stage_plan(0, rows, cols, Grid(1, 1), 0)


def _stage_plan(number: int, rows: StageShares, cols: StageShares, grid: Grid,
                rank: int) -> StagePlan:
    x, z, h, g, y = (_exchange(len(ARRAYS) * number + k, along_rows, along_cols, grid, rank)
                     for k, (along_rows, along_cols) in enumerate(zip(rows[:5], cols[:5])))
    row, col = grid.coords(rank)
    return StagePlan(x, z, h, g, y, Rectangle(rows.c[row], cols.c[col]))


def _exchange(tag: int, rows: Share, cols: Share, grid: Grid, rank: int) -> ExchangePlan:
    row, col = grid.coords(rank)

    def parts(along_rows: list[tuple[int, Span]],
              along_cols: list[tuple[int, Span]]) -> tuple[Part, ...]:
        each = (Part(r * grid.cols + c, Rectangle(a, b))
                for r, a in along_rows for c, b in along_cols)
        return tuple(part for part in each if part.peer != rank)
    owned = Rectangle(rows.owned[row], cols.owned[col])
    needed = Rectangle(rows.needed[row], cols.needed[col])
    return ExchangePlan(tag, owned, needed, _cover(owned, needed),
                        parts(rows.send(row), cols.send(col)),
                        parts(rows.recv(row), cols.recv(col)))


def _cover(a: Rectangle, b: Rectangle) -> Rectangle:
    """The smallest rectangle that covers both."""
    if not (a.size and b.size):
        return a if a.size else b
    return Rectangle((min(a.rows[0], b.rows[0]), max(a.rows[1], b.rows[1])),
                     (min(a.cols[0], b.cols[0]), max(a.cols[1], b.cols[1])))
