"""Questions to the arrays of checkpoints: arithmetic over 9 GB in a few tens of megabytes.

An expression (utils/expressions.py) has the names of the arrays, with dots for the slashes of HDF5:
``stage1.encode``, ``update.velocity.stage1.encode``; of two files, ``a.stage1.encode`` and
``b.stage1.encode``. Arrays of weights are (row, col, krow, kcol, map in, map); `REDUCTIONS` take
such an expression over the weights of each filter and leave (row, col, map).

Everything is read, computed and counted in blocks of positions: consecutive rows, or a part of one
row where a row is large. So a block is a consecutive piece of the result.
"""
import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from hpclcae.checkpoint.folder import find
from hpclcae.checkpoint.model_file import AXES
from hpclcae.checkpoint.reading import opened
from hpclcae.utils.errors import InputError
from hpclcae.utils.expressions import Expression
from hpclcae.utils.files import check_output, is_hdf5, read_hdf5, replacing_hdf5
from hpclcae.utils.reading import reading
from hpclcae.utils.summary import Summary, SummaryCollector
from hpclcae.utils.text import attribute

KIND = "hpclcae query"
SCHEMA = 1
NEURONS = "hpclcae neurons"  # the kind of neurons.h5

#: Over krow, kcol, map in: weights (row, col, krow, kcol, map in, map) -> numbers (row, col, map).
REDUCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rms": lambda x: np.sqrt(np.mean(np.square(x), axis=(2, 3, 4))),
    "mean": lambda x: np.mean(x, axis=(2, 3, 4)),
    "sum": lambda x: np.sum(x, axis=(2, 3, 4)),
    "norm": lambda x: np.sqrt(np.sum(np.square(x), axis=(2, 3, 4))),
    "min": lambda x: np.min(x, axis=(2, 3, 4)),
    "max": lambda x: np.max(x, axis=(2, 3, 4))}

#: Numbers of 8 bytes that a block may take, in all its arrays. With the tables of quantiles, a
#: query takes up to 40 MB, more only if the weights of a single position do not fit.
BLOCK = 1 << 21
_ROOM = 6  # arrays beside those that are read: the result, temporaries, places, keys

Block = tuple[slice, ...]


# ---- what is asked -------------------------------------------------------------------------------

@dataclass(frozen=True)
class Sources:
    """One or two opened files: where they are, their steps, and the arrays by the names to use."""
    paths: tuple[Path, ...]
    steps: tuple[int, ...]
    arrays: dict[str, h5py.Dataset]


@contextlib.contextmanager
def sources(first: str | Path, second: str | Path | None = None) -> Iterator[Sources]:
    """Open what is to be asked; with a second file, names begin with ``a.`` and ``b.``.

    Parameters
    ----------
    first, second : path
        A checkpoint, a run folder for its newest one, or a ``neurons.h5``.

    Raises
    ------
    InputError
        A file is missing, damaged or of another kind.
    """
    with contextlib.ExitStack() as stack:
        paths, steps, arrays = [], [], {}
        for given, prefix in [(first, "")] if second is None else [(first, "a."), (second, "b.")]:
            path = find(given)
            file = stack.enter_context(_opened(path))
            paths.append(path)
            steps.append(int(file.attrs["step"]))
            arrays.update({prefix + name: data for name, data in _arrays(file)})
        yield Sources(tuple(paths), tuple(steps), arrays)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A checkpoint or a neurons.h5."""
    if path.is_dir():
        with opened(path) as file:
            yield file
        return
    with reading(path, "HDF5 checkpoint or neurons.h5", "use another one"), read_hdf5(path) as file:
        if file.attrs.get("kind") == NEURONS:
            yield file
            return
    with opened(path) as file:
        yield file


def _arrays(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every array of real numbers whose name can be written in an expression."""
    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, item: found.update({name: item})
                    if isinstance(item, h5py.Dataset) else None)
    for name, data in found.items():
        if data.ndim and data.dtype.kind in "biuf" and all(map(str.isidentifier, name.split("/"))):
            yield name.replace("/", "."), data


def axes(data: h5py.Dataset) -> tuple[str, ...]:
    """Names of the axes of an array: ``row``, ``col`` and so on."""
    unnamed = AXES if data.ndim == len(AXES) else [f"axis {n}" for n in range(data.ndim)]
    return tuple(map(str, data.attrs.get("axes", unnamed)))


class Query:
    """An expression over the arrays of opened files, ready to be computed block by block.

    Parameters
    ----------
    text : str
        The expression. The arrays in it have one shape; beside arrays of weights, arrays (row, col,
        map) may stand too, such as reductions: then a filter's number goes with all its weights.
    sources : Sources
        The files; they stay open while the query is used.
    where : str
        What the text is, for messages.

    Attributes
    ----------
    expression : Expression
        What is computed.
    shape : tuple of int
        Shape of the result.
    axes : tuple of str
        Names of its axes.

    Raises
    ------
    InputError
        The text is no arithmetic, names an unknown array or none, mixes shapes, or reduces what is
        no array of weights.
    """

    def __init__(self, text: str, sources: Sources, where: str = "EXPRESSION") -> None:
        self.expression = Expression(text, where, REDUCTIONS)
        self.sources = sources
        calls = self.expression.reductions
        for name in sources.arrays:
            if "." in name and re.search(rf"(?<![\w.]){name.replace('.', '[./]')}(?!\w)",
                                         text) and name not in text:
                self.expression.refuse(f"'{name.replace('.', '/')}' is not known here",
                                       f"write dots for slashes: {name}")
        self.expression.check([*sources.arrays, *calls])
        self._plain = sorted(self.expression.names - calls.keys())
        self._reduced = {call: (REDUCTIONS[function], Expression(argument, where, REDUCTIONS))
                         for call, (function, argument) in calls.items()}
        named = [(name, sources.arrays[name].shape, axes(sources.arrays[name]))
                 for name in self._plain]
        named += [(call, self._reduced_shape(call, argument), (*AXES[:2], AXES[-1]))
                  for call, (_, argument) in self._reduced.items()]
        if not named:
            self.expression.refuse("it names no array",
                                   "use names such as " + ", ".join([*sources.arrays][:12]))
        largest, self.shape, self.axes = max(named, key=lambda entry: len(entry[1]))
        for name, shape, _ in named:
            if shape not in (self.shape, _per_filter(self.shape)):
                self.expression.refuse(
                    f"{largest} has shape {self.shape} and {name} has shape {shape}",
                    "use arrays of one shape; norm() and the like bring weights to (row, col, map)")
        self._read = sorted({*self._plain, *(name for _, argument in self._reduced.values()
                                             for name in argument.names)})

    def _reduced_shape(self, call: str, argument: Expression) -> tuple[int, ...]:
        if argument.reductions:
            self.expression.refuse(f"in {call} one reduction stands in another", "use only one")
        self.expression.check(self.sources.arrays, argument.names)
        shapes = {name: self.sources.arrays[name].shape for name in sorted(argument.names)}
        if not shapes:
            self.expression.refuse(f"{call} names no array", "give it an array of weights")
        first = next(iter(shapes.values()))
        for name, shape in shapes.items():
            if len(shape) != len(AXES) or shape != first:
                other = "" if shape == first else f", and {next(iter(shapes))} has shape {first}"
                self.expression.refuse(
                    f"{name} in {call} has shape {shape}{other}",
                    f"use arrays of weights ({', '.join(AXES)}) there, all of one shape")
        return _per_filter(first)

    @property
    def position_size(self) -> int:
        """Numbers that computing one position of the result takes, in all arrays."""
        widths = (math.prod(self.sources.arrays[name].shape[2:]) for name in self._read)
        return max(widths) * (len(self._read) + _ROOM)

    def values(self, block: Block) -> np.ndarray:
        """Compute a block of the result: float64, or bool if the expression is a condition.

        Raises
        ------
        InputError
            A file cannot be read.
        """
        read = {}
        for name in self._read:
            data = self.sources.arrays[name]
            with reading(data.file.filename, "HDF5 checkpoint", "use another one"):
                read[name] = data[block]
        values = {name: read[name] for name in self._plain}
        with np.errstate(all="ignore"):
            for call, (reduce, argument) in self._reduced.items():
                values[call] = reduce(argument.evaluate(read).astype(np.float64, copy=False))
        if len(self.shape) == len(AXES):
            values = {name: array[:, :, None, None, None] if array.ndim == 3 else array
                      for name, array in values.items()}
        return self.expression.evaluate(values)


def _per_filter(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(row, col, map) of an array of weights; of others, their shape."""
    return (*shape[:2], shape[-1]) if len(shape) == len(AXES) else shape


def blocks_of(shape: tuple[int, ...], position_size: int) -> list[Block]:
    """Blocks of positions in the order of the result; whole rows, or parts of a row."""
    if not math.prod(shape):
        return []
    rows, cols = (*shape, 1)[:2]
    positions = max(1, BLOCK // position_size)
    if positions < cols:
        return [(slice(row, row + 1), slice(col, min(col + positions, cols)))
                for row in range(rows) for col in range(0, cols, positions)]
    step = positions // cols
    return [(slice(row, min(row + step, rows)),) for row in range(0, rows, step)]


# ---- what is answered ----------------------------------------------------------------------------

@dataclass(frozen=True)
class Rows:
    """Some places of a result, (n, axis), their values, and how many there are in all."""
    count: int
    places: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Answer:
    """What became of a query.

    Attributes
    ----------
    summary : Summary or None
        Of the numbers, or of those that were chosen; None if the result is a condition.
    true, count : int
        For a condition: how many are true, of how many.
    rows : Rows or None
        If they were asked for.
    """
    summary: Summary | None
    true: int
    count: int
    rows: Rows | None


def answer(query: Query, chosen: Query | None = None, limit: int = 0, by_value: bool = False,
           out: Path | None = None,
           watched: Callable[[Sequence[tuple[int, Block]]], Iterable[tuple[int, Block]]] = iter
           ) -> Answer:
    """Compute a query; memory does not grow with the arrays (`BLOCK`).

    Numbers are computed twice, conditions once: the second time for quantiles and histogram.

    Parameters
    ----------
    query : Query
        What to compute.
    chosen : Query, optional
        A condition of the same shape: summary and rows are of the places where it holds.
    limit : int
        Rows to return at most, in the order of places; 0: none are asked for.
    by_value : bool
        The largest values come first, and those that are equal in the order of places; nan last.
    out : Path, optional
        Write the whole result into this HDF5 file: dataset ``result``, float64 or bool.
    watched : callable
        Is given the list of blocks and returns them one by one, for showing progress.

    Raises
    ------
    InputError
        `chosen` is no condition or of another shape, a file cannot be read, or `out` cannot be
        written or is one of the files that are read.
    """
    size = query.position_size
    if chosen is not None:
        _check_condition(query, chosen)
        size += chosen.position_size
    condition = query.expression.is_condition
    blocks = blocks_of(query.shape, size)
    rows = _RowCollector(query.shape, limit, by_value) if limit else None
    numbers, true, count, begun = SummaryCollector(), 0, 0, 0
    with _result_file(out, query) if out else contextlib.nullcontext() as result:
        for turn, block in watched([(turn, block) for turn in range(1 if condition else 2)
                                    for block in blocks]):
            values = query.values(block)
            if result is not None and turn == 0:
                result[block] = values
            values = values.ravel()
            places = None if chosen is None else np.flatnonzero(chosen.values(block))
            if rows is not None and turn == 0:
                rows.add(begun, values, places)
            begun += values.size
            if places is not None:
                values = values[places]
            if condition:
                true += int(np.count_nonzero(values))
                count += values.size
            else:
                (numbers.look_again if turn else numbers.look)(values)
    summary = None if condition else numbers.summary(exact=len(blocks) == 1)
    return Answer(summary, true, count if condition else numbers.count,
                  rows.rows() if rows is not None else None)


def check_result(out: Path, sources: Sources,
                 is_ours: Callable[[Path], bool] = lambda path: is_hdf5(path, KIND)) -> None:
    """See that a file can be written, before the work.

    Parameters
    ----------
    is_ours : callable
        Whether an existing file is an earlier result, which may go.

    Raises
    ------
    InputError
        It is another file that exists, or in a checkpoint; its folder does not exist.
    """
    resolved = out.resolve()
    for path in sources.paths:
        if path.resolve() in (resolved, *resolved.parents):
            raise InputError(f"{out} belongs to {path}, which is read: choose another file")
    if not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: it must be a file in a folder that exists")
    check_output(out, is_ours, "a result of a query")


def _check_condition(query: Query, chosen: Query) -> None:
    if not chosen.expression.is_condition:
        chosen.expression.refuse("it is no condition", "compare something, such as x > 0.5")
    if chosen.shape != query.shape:
        chosen.expression.refuse(f"it has shape {chosen.shape}, and {query.expression.text} has "
                                 f"shape {query.shape}", "use arrays of the same shape in both")


@contextlib.contextmanager
def _result_file(out: Path, query: Query) -> Iterator[h5py.Dataset]:
    """The dataset to write a result into; its file appears when it is whole."""
    check_result(out, query.sources)
    try:
        with replacing_hdf5(out) as file:
            file.attrs.update(kind=KIND, schema=SCHEMA)
            dtype = bool if query.expression.is_condition else np.float64
            result = file.create_dataset("result", query.shape, dtype)
            result.attrs.update(expression=query.expression.text, steps=query.sources.steps,
                                sources=attribute(list(map(str, query.sources.paths))),
                                axes=query.axes)
            yield result
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror or error}): make room, or "
                         "choose another file") from error


# ---- what is collected on the way ----------------------------------------------------------------

class _RowCollector:
    """The first places, or those of the largest values; never more than the limit and a block."""

    def __init__(self, shape: tuple[int, ...], limit: int, by_value: bool) -> None:
        self._shape, self._limit, self._by_value = shape, limit, by_value
        self._count = 0
        self._places, self._values = np.empty(0, np.int64), np.empty(0)

    def add(self, begun: int, values: np.ndarray, chosen: np.ndarray | None) -> None:
        """Look at a block, `begun` numbers after the first one; `chosen`: places in it."""
        places = np.arange(values.size) if chosen is None else chosen
        self._count += places.size
        if not self._by_value:
            places = places[:self._limit - self._values.size]
        elif self._values.size == self._limit:  # the others cannot be among the largest; nan is not
            places = places[~(values[places] <= self._values[-1])]
        self._places = np.concatenate([self._places, begun + places])
        self._values = np.concatenate([self._values, values[places].astype(np.float64)])
        if self._by_value:
            order = np.argsort(-self._values, kind="stable")[:self._limit]
            self._places, self._values = self._places[order], self._values[order]

    def rows(self) -> Rows:
        """What was found."""
        places = np.stack(np.unravel_index(self._places, self._shape), axis=-1)
        return Rows(self._count, places, self._values)
