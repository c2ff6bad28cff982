"""An ingest of very many images that is killed again and again comes to the undisturbed dataset.

    python -m tests.support.kills FOLDER --images 200000 --kills 20

FOLDER is made, and removed at the end. `tests/unit/data/ingest/test_resume.py` does the same with
150 images.
"""
import argparse
import random
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from hpclcae import cli
from tests.support.ingesting import contents, killed_after
from tests.support.pictures import encode, texture

SIDE, SCENES = 64, 600  # pixels of a picture; larger pictures that they are cut from
FOLDER = 1000           # files in one folder


def write_pictures(folder: Path, count: int) -> list[Path]:
    """JPEG files: every fourth in a folder, the others in an archive; some are there twice."""
    rng = np.random.default_rng(0)
    scenes = [texture(rng, 6 * SIDE, 6 * SIDE) for _ in range(SCENES)]
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        content = b""
        for number in range(count):
            top, left = rng.integers(0, 5 * SIDE, 2)
            if number % 50 or not content:
                part = scenes[number % SCENES][top:top + SIDE, left:left + SIDE]
                content = encode(Image.fromarray(part), "JPEG")
            name = f"{number // FOLDER:04d}/{number:07d}.jpg"
            if number % 4:
                archive.writestr(name, content)
            else:
                (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "photos" / name).write_bytes(content)
    return [folder / "photos", folder / "more.zip"]


def run(folder: Path, images: int, kills: int) -> bool:
    """Say whether the two datasets are the same."""
    folder.mkdir()
    options = [*write_pictures(folder, images), "--size", 32, "--dedupe", "exact", "--shard-size",
               images * 32 * 32 * 3 / 10e9, "--workers", 2]
    began = time.monotonic()
    assert cli.main(["data", "ingest", *map(str, [*options, "--out", folder / "one.h5"])]) == 0
    seconds = time.monotonic() - began
    generator, out, done, ends = random.Random(0), folder / "two.h5", 0, 0
    while done < kills:
        if killed_after(generator.uniform(0, seconds / 2), *options, "--out", out):
            ends += 1  # begin again
            out.unlink()
            shutil.rmtree(folder / "two.shards")
        else:
            done += 1
            print(f"kill {done}: {stage(folder / 'two.h5.work')}", flush=True)
    assert cli.main(["data", "ingest", *map(str, [*options, "--out", out])]) == 0
    one, two = contents(folder / "one.h5"), contents(out)
    what = "the same" if one == two else "NOT the same"
    print(f"{len(one['group'])} images in {len(one['shards'])} shards, {seconds:.0f} s without a "
          f"kill; {kills} kills, {ends} ends between them: {what} dataset")
    return one == two


def stage(work: Path) -> str:
    """How far it was when it was killed."""
    parts = sum(path.is_file() and not path.suffix for path in (work / "units").rglob("*"))
    return f"{parts} parts, {'a' if (work / 'plan.json').exists() else 'no'} plan, " \
        f"{len([*work.glob('shard-*')])} shards"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    try:
        sys.exit(0 if run(arguments.folder, arguments.images, arguments.kills) else 1)
    finally:
        shutil.rmtree(arguments.folder, ignore_errors=True)
