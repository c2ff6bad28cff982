"""The command ``hpclcae bench ingest``: images/s of ingest against Pillow's decode and resize."""
import argparse
import contextlib
import functools
import io
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpclcae.bench import common
from hpclcae.bench.common import Report, ratio
from hpclcae.commands.arguments import whole
from hpclcae.data.ingest.build import ingest
from hpclcae.data.ingest.settings import Settings
from hpclcae.utils.errors import require
from hpclcae.utils.tables import table

DETAIL = (4, 16, 64, 256)  # cells of a made-up photograph, along an edge: detail of every scale


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--images", type=whole(1, 10**6), default=200, metavar="N",
                        help="JPEG files that are made and read (default 200)")
    parser.add_argument("--width", type=whole(8, 10**4), default=640, metavar="PIXELS",
                        help="of a picture, three quarters as high (default 640)")
    parser.add_argument("--size", type=whole(1, 4096), default=200, metavar="PIXELS",
                        help="rows and cols of the images (default 200)")
    common.configure(parser, repeat=3)


def run(args: argparse.Namespace) -> None:
    """Time ingest, as it is and with more to do, beside Pillow alone: in one process each."""
    require("PIL.Image", "images", "reading pictures")
    report = Report("ingest", args, ("pillow", "h5py"))
    print(report.heading())
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder, "photos"), Path(folder, "out.h5")
        pictures(photos, args.images, args.width)
        files = sorted(photos.iterdir())
        settings = {"ingest": Settings(size=args.size, min_side=1),
                    "ingest, near duplicates dropped": Settings(size=args.size, min_side=1,
                                                                dedupe="near")}

        def whole_ingest(chosen: Settings) -> None:
            with contextlib.redirect_stderr(io.StringIO()):
                ingest([photos], out, chosen)
        functions: dict[str, Callable[[], object]] = {
            "Pillow alone": functools.partial(bare, files, args.size),
            **{name: functools.partial(whole_ingest, chosen)
               for name, chosen in settings.items()}}
        times = report.paired(functions)
    case = f"{args.width} x {args.width * 3 // 4} JPEG to {args.size} x {args.size}"
    lines = []
    for name in functions:
        rate = args.images / statistics.median(times[name])
        share = 1 / ratio(times[name], times["Pillow alone"])
        lines.append((name, rate, share))
        report.add(case, name, rate, "images/s of a core")
        report.add(case, f"{name}, of Pillow alone", share, "ratio")
    print(f"\n{case}, one process, {args.images} images")
    print(table([("", ""), ("images/s", ".1f"), ("of Pillow alone", ".2f")], lines))
    report.warn_if_busy()


def pictures(folder: Path, count: int, width: int) -> None:
    """Make JPEG files with detail of every scale."""
    module = require("PIL.Image", "images", "making pictures")
    rng = np.random.default_rng(0)
    folder.mkdir()
    layers = [[module.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
               .resize((width, width * 3 // 4), module.Resampling.BICUBIC) for _ in range(4)]
              for cells in DETAIL]
    for number in range(count):
        some = [np.roll(np.asarray(layer[rng.integers(4)], np.uint16), rng.integers(width, size=2),
                        (0, 1)) for layer in layers]
        image = module.fromarray((np.sum(some, axis=0) // len(some)).astype(np.uint8))
        image.save(folder / f"{number:06d}.jpg", quality=85)


def bare(files: list[Path], size: int) -> None:
    """What no ingest can do without: decode, at a lower scale where JPEG offers it, and resize."""
    module = require("PIL.Image", "images", "reading pictures")
    for file in files:
        with module.open(file) as image:
            cols, rows = image.size
            image.draft("RGB", (size, size))
            side, scale = min(cols, rows), image.size[0] / cols
            left, top = (cols - side) // 2 * scale, (rows - side) // 2 * scale
            np.asarray(image.convert("RGB").resize(
                (size, size), module.Resampling.LANCZOS,
                box=(left, top, left + side * scale, top + side * scale)))
