"""What every experiment leaves in ``RUN/experiments/``, so that a reader need know none of them.

``NAME.json`` says what was asked of which weights and images, and has *parts* in reading order:
tables, figures, texts. ``NAME.h5`` has arrays; ``NAME-FIGURE.png`` and ``.svg`` are figures.
Results of other weights than those of the run are refused.

An experiment makes a `Record` before its work, which fails where nothing could be written, fills it
and saves it in the end::

    record = Record("invariance", "How a neuron stands ...", args.run, model, args.command_line,
                    figures=["curves"], out=args.out)
    record.about(frames)
    record.table("Half-widths", ["direction", "pixels"], [["right", 9.5]])
    record.figure(lambda: draw(found), "curves", "What is drawn.", "What it looks like.")
    record.values["half_widths"] = found
    record.save()
"""
import math
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.made_from import require_same, weights_fingerprint
from hpclcae.experiments.neurons import concept_of, run_folder
from hpclcae.experiments.results import save_json
from hpclcae.utils.errors import InputError, MissingExtraError, require, shown
from hpclcae.utils.files import (check_output, check_picture, is_hdf5, is_json, replacing_hdf5,
                                 save_figure)
from hpclcae.utils.provenance import versions
from hpclcae.utils.reading import reading, require_kinds, whole_json
from hpclcae.utils.tables import table
from hpclcae.utils.text import storable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "hpclcae experiment"
SCHEMA = 1
FOLDER = "experiments"  # in the folder of a run
#: The experiments in the order in which one reads about them, and in which `all` runs them.
ORDER = ("concepts", "autoencoders", "kmeans", "without-faces", "histograms", "stimuli",
         "invariance", "map", "probes", "film", "sensitivity", "categories")
#: What stands in every result, and in each of its sets and parts.
KEYS: dict[str, type | tuple[type, ...]] = {
    "kind": str, "schema": int, "experiment": str, "title": str, "command": str, "made": str,
    "seconds": (int, float), "step": int, "weights_fingerprint": str, "frames": (str, NoneType),
    "frames_fingerprint": (str, NoneType), "framing": (str, NoneType), "sets": list,
    "versions": dict, "parts": list, "values": dict}
SET: dict[str, type | tuple[type, ...]] = {"path": str, "fingerprint": str}
PARTS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "text": {"text": str}, "figure": {"file": str, "svg": str, "caption": str, "alt": str},
    "table": {"title": str, "columns": list, "rows": list, "notes": list}}
WIDTH = 100       # columns of the terminal, for notes
RESOLUTION = 150  # dots per inch, of a figure

Cell = str | int | float | None


class Record:
    """Collects what one experiment finds, prints its tables, and writes everything in the end.

    Parameters
    ----------
    name, title : str
        Of the experiment: the word that is typed, and a line for the reader.
    checkpoint : str
        What the user named: a run folder, or one of its checkpoints.
    model : Model
        What was loaded of it.
    command : str
        The command line that makes it again.
    figures : sequence of str
        The figures that will be drawn: "curves" for ``NAME-curves.png`` and ``.svg``.
    out : Path, optional
        Where results go; by default ``RUN/experiments``.
    writes : bool
        Does this process print and write; where ranks share the work, one of them does.

    Attributes
    ----------
    values : dict
        What the experiment knows, for programs: anything that NumPy or JSON knows; what is not
        finite becomes null.
    arrays : dict
        For ``NAME.h5``: an array for each path in the file.

    Raises
    ------
    InputError
        A result could not be written, or would replace something that no experiment wrote.
    """

    def __init__(self, name: str, title: str, checkpoint: str, model: Model, command: str, *,
                 figures: Sequence[str] = (), out: Path | None = None, writes: bool = True) -> None:
        self.name, self.title, self.command, self.writes = name, title, command, writes
        self.folder = experiments_folder(checkpoint) if out is None else out
        self.values: dict[str, object] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self._step, self._weights = model.step, weights_fingerprint(model) if writes else ""
        self._parts: list[dict[str, object]] = []
        self._sets: list[dict[str, object]] = []
        self._figures = set(figures)
        self._pictures: list[Path] = []
        self._began = time.monotonic()
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file, and results go into a folder: name another "
                             "place (--out), or remove it")
        what = f"a result ({KIND} {name})"
        check_output(self._file("json"), lambda path: is_json(path, "kind", KIND), what)
        check_output(self._file("h5"), lambda path: is_hdf5(path, KIND), what)
        for figure in figures:
            for suffix in ("png", "svg"):
                check_picture(self._file(suffix, figure), f"{KIND} {name}")

    def about(self, *datasets: Dataset) -> None:
        """Say which datasets of images the results are about; the first is the one of `frames`."""
        self._sets += [{"path": str(dataset.path), "fingerprint": dataset.fingerprint,
                        "framing": dataset.framing, "images": dataset.count,
                        "concept": (concept_of(dataset) if dataset.labels is not None
                                    and len(dataset.label_names or ()) <= 2 else None)}
                       for dataset in datasets]

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._add({"type": "text", "text": text}, text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]],
              notes: Sequence[str] = ()) -> None:
        """Add a table, and print it.

        Numbers are shown as they are, so round them; None is an empty cell.
        """
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"{title}: {len(row)} cells in a row of {len(columns)} columns")
        cells = [[None if isinstance(cell, float) and math.isnan(cell) else plain(cell)
                  for cell in row] for row in rows]
        shown = table([(column, "" if _is_text([row[number] for row in cells]) else ">")
                       for number, column in enumerate(columns)],
                      [["" if cell is None else str(cell) for cell in row] for row in cells])
        self._add({"type": "table", "title": title, "columns": list(columns), "rows": cells,
                   "notes": list(notes)},
                  "\n".join([title, "", shown, *(textwrap.fill(note, WIDTH, break_on_hyphens=False)
                                                 for note in notes)]))

    def figure(self, draw: "Callable[[], Figure]", name: str, caption: str, alt: str) -> None:
        """Draw a figure and write it; without Matplotlib a line says that it is left out.

        Parameters
        ----------
        draw : callable
            Makes the figure.
        name : str
            One of those that the record was made with.
        caption, alt : str
            What to read below it; what it shows, for those who cannot see it.
        """
        if name not in self._figures:
            raise ValueError(f"figure {name} was not announced")
        if not self.writes:
            return
        png, svg = self._file("png", name), self._file("svg", name)
        try:
            require("matplotlib", "figures", "drawing")
        except MissingExtraError as error:
            self.text(f"{png.name} is left out: {error}")
            return
        drawn = draw()
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in (png, svg):
            save_figure(drawn, file, RESOLUTION)
        self._pictures += [png, svg]
        self._add({"type": "figure", "file": png.name, "svg": svg.name, "caption": caption,
                   "alt": alt}, "")

    def save(self) -> list[Path]:
        """Write everything and say so; return the files."""
        if not self.writes:
            return []
        self.folder.mkdir(parents=True, exist_ok=True)
        first = self._sets[0] if self._sets else {}
        header: dict[str, object] = {
            "kind": KIND, "schema": SCHEMA, "experiment": self.name, "title": self.title,
            "command": self.command,
            "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._began, 3), "step": self._step,
            "weights_fingerprint": self._weights}
        files = list(self._pictures)
        if self.arrays:
            files.append(self._file("h5"))
            with replacing_hdf5(files[-1]) as store:
                store.attrs.update(storable(header))
                for path, array in self.arrays.items():
                    store[path] = array
        else:
            self._file("h5").unlink(missing_ok=True)  # of an earlier call: not about these results
        files.append(self._file("json"))
        save_json(files[-1], header | {
            "frames": first.get("path"), "frames_fingerprint": first.get("fingerprint"),
            "framing": first.get("framing"), "sets": self._sets, "versions": versions(),
            "parts": self._parts, "values": plain(self.values)})
        print("wrote " + ", ".join(map(str, files)))
        return files

    def _file(self, suffix: str, figure: str = "") -> Path:
        return self.folder / f"{self.name}{'-' * bool(figure)}{figure}.{suffix}"

    def _add(self, part: dict[str, object], said: str) -> None:
        self._parts.append(part)
        if self.writes and said:
            print(f"\n{said}\n", flush=True)


def experiments_folder(checkpoint: str) -> Path:
    """Where the results of a run are.

    Raises
    ------
    InputError
        There is no such run.
    """
    return run_folder(checkpoint) / FOLDER


def read_record(run: str, name: str, model: Model | None = None) -> dict[str, Any]:
    """Read what an experiment left.

    Parameters
    ----------
    run : str
        The folder of the run, or one of its checkpoints.
    name : str
        Of the experiment.
    model : Model, optional
        What the results are about, if it is already loaded.

    Returns
    -------
    dict with `KEYS`, ``sets`` with `SET` and ``parts`` with `PARTS`.

    Raises
    ------
    InputError
        It is missing, damaged, of a newer version, or about other weights than those of the
        checkpoint, or of the run's newest one.
    """
    return read_file(experiments_folder(run) / f"{name}.json", name, model or Model.load(run), run)


def read_file(file: Path, name: str, model: Model, run: str = "RUN") -> dict[str, Any]:
    """The same from any folder; errors as `read_record`."""
    remedy = f"hpclcae experiment {name} {run} writes it"
    if not file.is_file():
        raise InputError(f"there is no {file}: {remedy}")
    with reading(file, f"a result ({KIND})", remedy):
        found = whole_json(file.read_text(encoding="utf-8"))
        if found["kind"] != KIND or found["schema"] > SCHEMA:
            raise InputError(f"{file} is of another kind or a newer version: {remedy}")
        require_kinds(found, KEYS)
        if found["experiment"] != name:
            raise ValueError(f"it is about {shown(found['experiment'])}")
        for each in found["sets"]:
            require_kinds(each, SET)
        for part in found["parts"]:
            require_kinds(part, {"type": str} | PARTS[part["type"]])
            if part["type"] == "table":
                _require_rows(part["columns"], part["rows"], part["notes"])
    require_same(found["weights_fingerprint"], weights_fingerprint(model), file,
                 f"network than {model.path}", f"{remedy} again")
    return found


def _require_rows(columns: list[object], rows: list[object], notes: list[object]) -> None:
    """See that a table is one; errors as `require_kinds`."""
    if not all(isinstance(text, str) for text in (*columns, *notes)):
        raise ValueError("a column or a note has no words")
    for row in rows:
        if not isinstance(row, list) or len(row) != len(columns):
            raise ValueError("a row is too long or too short")
        if not all(cell is None or isinstance(cell, (str, int)) or isinstance(cell, float)
                   and math.isfinite(cell) for cell in row):
            raise ValueError("a cell is neither a text nor a number")


def seconds_of(file: Path) -> float | None:
    """How long an experiment took, by its result; None if that cannot be read."""
    try:
        with reading(file, "a result", ""):
            found = whole_json(file.read_text(encoding="utf-8"))
            require_kinds(found, {"seconds": (int, float)})
            return float(found["seconds"])
    except InputError:
        return None


def records(run: str, model: Model | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """All results of a run in the order of reading, and a line for each that cannot be used.

    Results of experiments that `ORDER` does not know come last.
    """
    folder = experiments_folder(run)
    model = model or Model.load(run)
    found, refused = [], []
    names = [file.stem for file in folder.glob("*.json")] if folder.is_dir() else []
    for name in sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER
                                                else len(ORDER), name)):
        try:
            found.append(read_record(run, name, model))
        except InputError as error:
            refused.append(str(error))
    return found, refused


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays become lists, what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _is_text(cells: Sequence[Cell]) -> bool:
    """Whether a column of cells is aligned to the left: a number, or one with an interval, is not.
    """
    said = [str(cell) for cell in cells if cell not in (None, "")]
    return not said or any(not text.lstrip("+-([<>").lstrip("-")[:1].isdigit() for text in said)
