"""Labels from folders: which name in the path of a picture says what it shows.

(From a file of names and labels: `label_file.py`.)

Level 0 is the source itself, level 1 the folder below it, and so on; what lies deeper belongs to
the same class, as in torchvision's ImageFolder. Names are compared in Unicode's NFC, since macOS
and Linux write accents differently, and an archive counts without its ending.
"""
import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpclcae.data.ingest.walk import ARCHIVES, Entry
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import summed, table
from hpclcae.utils.text import printable

MAX_ROWS = 20     # of the table of labels
SHOWN = 3         # names that may have been meant

Folders = tuple[str, ...]  # names from a source down to where a picture lies


def normal(name: str) -> str:
    """The form of a folder's name in which it is compared, and stored as a label."""
    name = printable(name).rstrip("/")
    ending = max((end for end in ARCHIVES if name.lower().endswith(end)), key=len, default="")
    return unicodedata.normalize("NFC", name.removesuffix(name[-len(ending):] if ending else ""))


def concept_names(concept: str) -> list[str]:
    """Names of label 0 and of label 1, the concept."""
    return [f"not {normal(concept)}", normal(concept)]


@dataclass(frozen=True)
class Labels:
    """What pictures are called.

    Attributes
    ----------
    names : list of str
        Name of label 0, 1, ...
    of : dict
        Folders, or the name of a file, to label.
    text : str
        The table of what is labelled how, to print before the work.
    """
    names: list[str]
    of: Mapping[Any, int]
    text: str


def from_folders(found: Iterable[Entry], concept: str | None, level: int | None) -> Labels:
    """Choose the labels of all that was found, before it is read.

    Without `level` it is that of the folder below the source. Where all of them have one name the
    sources themselves are the classes (``CLASS1/images CLASS2/images``); in an archive that wraps
    all in one folder it is the folder below that. A concept is looked for in each source: below it
    first, then deeper, then in its own name (``lfw`` for ``lfw/PERSON/x.jpg``).

    Parameters
    ----------
    found : iterable of Entry
    concept : str or None
        With it label 1 is this folder, label 0 all others; without it each folder is a class.
    level : int or None
        That the user names.

    Raises
    ------
    InputError
        No folder has the name of the concept, or it stands at two levels of one source.
    """
    counts = Counter(entry.folders for entry in found)
    paths = {folders: tuple(map(normal, folders)) for folders in counts}
    if concept is not None and counts:
        names, label = concept_names(concept), _concept(counts, paths, concept, level)
    else:
        of_source = _levels(paths, level)
        chosen = {folders: _at(path, of_source[folders[0]]) for folders, path in paths.items()}
        names = list(dict.fromkeys(chosen.values()))
        number = {name: place for place, name in enumerate(names)}
        label = {folders: number[name] for folders, name in chosen.items()}
    return Labels(names, label, _describe(names, label, counts))


def _at(path: Folders, level: int) -> str:
    """The name at a level; of a picture that lies above it, the folder that it lies in."""
    return path[min(level, len(path) - 1)]


def _levels(paths: dict[Folders, Folders], level: int | None) -> dict[str, int]:
    """The level of each source, where there is no concept."""
    by_source: dict[str, list[Folders]] = {}
    for folders, path in paths.items():
        by_source.setdefault(folders[0], []).append(path)
    if level is not None:
        return dict.fromkeys(by_source, level)
    levels = {source: 2 if _wrapped(source, below) else 1 for source, below in by_source.items()}
    names = {_at(path, levels[source]) for source, below in by_source.items() for path in below}
    if len(names) == 1 and len(by_source) > 1:
        return dict.fromkeys(by_source, 0)
    return levels


def _wrapped(source: str, paths: Sequence[Folders]) -> bool:
    """Whether an archive has one folder at its top, and the classes in that."""
    return (source.lower().endswith(ARCHIVES) and all(len(path) > 2 for path in paths)
            and len({path[1] for path in paths}) == 1 and len({path[2] for path in paths}) > 1)


def _concept(counts: Counter[Folders], paths: dict[Folders, Folders], concept: str,
             level: int | None) -> dict[Folders, int]:
    """Label 1 for what lies in a folder with the concept's name."""
    wanted = normal(concept)
    label = dict.fromkeys(paths, 0)
    for source in dict.fromkeys(folders[0] for folders in paths):
        mine = {folders: path for folders, path in paths.items() if folders[0] == source}
        # Where the name stands, the highest level of each path; the source itself comes last.
        at = {folders: places[1] if path[0] == wanted and len(places) > 1 else places[0]
              for folders, path in mine.items()
              if (places := [i for i, name in enumerate(path) if name == wanted])}
        if level is not None:
            at = {folders: level for folders, path in mine.items()
                  if level < len(path) and path[level] == wanted}
        elif len(set(at.values())) > 1 and 0 in at.values():
            at = {folders: place for folders, place in at.items() if place}
        if len(set(at.values())) > 1:
            shown = {place: "/".join(folders[:place + 1]) for folders, place in at.items()}
            raise InputError(f"--concept {concept} stands at several levels ("
                             + ", ".join(f"{place}: {shown[place]}" for place in sorted(shown))
                             + "): choose one with --label-level N")
        label.update(dict.fromkeys(at, 1))
    if not any(label.values()):
        raise InputError(f"--concept {concept}: no image that was found lies in a folder of that "
                         "name" + (f" at level {level}" if level is not None else "")
                         + _near(wanted, counts, paths))
    return label


def _near(wanted: str, counts: Counter[Folders], paths: dict[Folders, Folders]) -> str:
    """The end of a message: folders that may have been meant, or else what there is."""
    images: Counter[str] = Counter()
    for folders, path in paths.items():
        for name in set(path):
            images[name] += counts[folders]
    by_key = {name.casefold(): name for name in images}
    for word in (wanted.rpartition("/")[2], wanted):
        if close := difflib.get_close_matches(word.casefold(), by_key, n=SHOWN, cutoff=0.6):
            return "; near: " + ", ".join(by_key[key] for key in close)
    most = [name for name, _ in images.most_common(2 * SHOWN)]
    return "; there are " + ", ".join(most) + (", ..." if len(images) > len(most) else "")


def shortened(columns: Sequence[str], rows: Sequence[tuple[str, int, str]]) -> str:
    """A table of labels and their files, of the first MAX_ROWS of them."""
    text = table(columns, rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        text += (f"\nand {len(rows) - MAX_ROWS} more labels with "
                 f"{sum(row[1] for row in rows[MAX_ROWS:])} files")
    return text


def _describe(names: Sequence[str], label: dict[Folders, int], counts: Counter[Folders]) -> str:
    """The table: label, how many files, and the folders that they lie in."""
    folders: dict[int, list[Folders]] = {}
    for place, number in label.items():
        folders.setdefault(number, []).append(place)
    rows = [(name, sum(counts[place] for place in folders.get(number, ())),
             summed(["/".join(place) for place in folders.get(number, ())]))
            for number, name in enumerate(names)]
    lines = [shortened(("label", "files", "in"), rows)]
    if sum(row[1] > 0 for row in rows) == 1:
        only = next(row[0] for row in rows if row[1])
        lines.append(f"every file gets the label {only}: other folders are chosen with "
                     "--label-level N (0: the source, 1: below it, 2: below that)")
    return "\n".join(lines)
