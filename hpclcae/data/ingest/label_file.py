"""Labels from a file: a line for each picture, its name and what it shows.

Lines are ``name,label`` (also with ``;`` or tabs between, as spreadsheets write them), with or
without a first line of titles. A name is as much of the end of a picture's path as tells it from
the others: ``cats/a.jpg``, ``a.jpg`` or ``a``. Labels are names in any encoding, or whole numbers
from 0. Names of files and labels are compared as folders are (`labels.normal`).
"""
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpclcae.data.ingest.labels import Labels, normal, shortened
from hpclcae.data.ingest.walk import Entry
from hpclcae.utils.errors import InputError, one_line, shown
from hpclcae.utils.reading import reading
from hpclcae.utils.tables import summed
from hpclcae.utils.text import to_text

TITLES = (("name", "file", "filename", "image", "id", "path"),
          ("label", "class", "category"))  # of the two columns, in the first line
LARGEST = 2**31 - 1  # of labels that are numbers
REMEDY = "give lines of a picture's name and its label, with a comma between"


def from_file(path: Path, found: Iterable[Entry]) -> Labels:
    """Choose the labels of all that was found, before it is read.

    Labels are numbered in alphabetical order, or in their own if all are numbers.

    Parameters
    ----------
    path : Path
    found : iterable of Entry

    Raises
    ------
    InputError
        The file cannot be read; a line has no name or no label, or a negative or too large one;
        two lines disagree; a name is that of several pictures, or no name is that of any.
    """
    of_name = _read(path)
    names = sorted(set(of_name.values()), key=int if _are_numbers(of_name.values()) else None)
    number = {name: place for place, name in enumerate(names)}
    of: dict[str, int] = {}
    taken: dict[str, str] = {}  # name in the file -> picture
    files, example = [0] * len(names), ""
    for entry in found:
        example = example or entry.name
        if (name := _meant(entry.name, of_name)) is None:
            continue
        if taken.setdefault(name, entry.name) != entry.name:
            raise InputError(f"{path}: {one_line(name)} is the name of {taken[name]} and of "
                             f"{entry.name}: write more of the path before it")
        of[entry.name] = number[of_name[name]]
        files[of[entry.name]] += 1
    if not of:
        raise InputError(f"{path}: none of its {len(of_name)} names is that of a picture that was "
                         f"found; it has {one_line(next(iter(of_name)))}"
                         + (f", a picture is {example}" if example else ""))
    text = shortened(("label", "files", ""), [(name, count, "") for name, count
                                              in zip(names, files)])
    if gone := [one_line(name) for name in of_name if name not in taken]:
        text += f"\n{len(gone)} of {len(of_name)} names were not found: {summed(gone)}"
    return Labels(names, of, text)


def _meant(name: str, of_name: dict[str, str]) -> str | None:
    """The name in the file that means a picture: the longest, with the ending before without."""
    whole = normal_path(name)
    for path in (whole, whole[:whole.rindex(".")] if "." in whole.rpartition("/")[2] else ""):
        parts = path.split("/")
        for first in range(len(parts)):
            if (tail := "/".join(parts[first:])) in of_name:
                return tail
    return None


def normal_path(name: str) -> str:
    """The form of the name of a picture in which it is compared."""
    parts = [normal(part) for part in name.replace("\\", "/").split("/")]
    return "/".join(part for part in parts if part not in ("", "."))


def _read(path: Path) -> dict[str, str]:
    """Label of every name."""
    of_name: dict[str, str] = {}
    with reading(path, "a file of labels", REMEDY):
        content = path.read_bytes()
    for line, cells in _rows(path, content):
        where = f"{path} line {line}"
        if len(cells) != 2:
            raise InputError(f"{where} has {len(cells)} columns ({shown(','.join(cells))}), not "
                             f"two: {REMEDY}")
        name, label = normal_path(cells[0].strip()), normal(cells[1].strip())
        if not name or not label:
            raise InputError(f"{where} has no {'label' if name else 'name'} "
                             f"({shown(','.join(cells))}): {REMEDY}, or leave the line out")
        if of_name.setdefault(name, label) != label:
            raise InputError(f"{where} labels {one_line(name)} {shown(label)}, a line before it "
                             f"{shown(of_name[name])}: leave one of them out")
    if not of_name:
        raise InputError(f"{path} has no labels: {REMEDY}")
    if _are_numbers(of_name.values()):
        for name, label in of_name.items():
            if not 0 <= int(label) <= LARGEST:
                raise InputError(f"{path}: {one_line(name)} has label {one_line(label, 60)}; "
                                 f"labels that are numbers go from 0 to {LARGEST}: leave pictures "
                                 "out whose class is not known")
    return of_name


def _rows(path: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """The lines of the file as cells, with their numbers; not the titles, nor empty lines."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16", "replace")
    else:
        text = to_text(content.removeprefix(b"\xef\xbb\xbf"))
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    between = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(lines, delimiter=between)
    try:
        for cells in reader:
            titles = reader.line_num == 1 and len(cells) == 2 and all(
                cell.strip().casefold() in known for cell, known in zip(cells, TITLES))
            if any(cell.strip() for cell in cells) and not titles:
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num} cannot be read ({error}): "
                         f"{REMEDY}") from error


def _are_numbers(labels: Iterable[str]) -> bool:
    """Whether all are whole numbers, of a length that Python reads."""
    return all(label.removeprefix("-").isdecimal() and len(label) < 1000 for label in labels)
