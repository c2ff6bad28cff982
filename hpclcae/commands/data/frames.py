"""The command ``hpclcae data frames``: training and test frames, composed from fetched images."""
import argparse
from pathlib import Path
from typing import Any

from hpclcae.data.frames.build import COUNT, FACES_OF_A_PERSON, compose_frames
from hpclcae.data.frames.recipe import LABELS, SPLITS, Recipe, check_range
from hpclcae.data.framing import CENTRED
from hpclcae.utils.cores import cores

#: Faces, heads, others, cut-outs. In training few show a face, as in the paper
#: (notes/decisions.md).
SHARES = {"train": (0.042, 0.018, 0.0, 0.11), "test": (0.35, 0.0, 0.0, 0.0),
          "all": (0.042, 0.018, 0.0, 0.11)}
#: The same for cats and bodies. In the test other rendered things and cut-outs are as frequent as
#: they are, so that "something was put on a photograph" is not what is told.
RENDERED = {"train": (0.0, 0.06, 0.04, 0.07), "test": (0.0, 0.35, 0.2, 0.15),
            "all": (0.0, 0.06, 0.04, 0.07)}
SIZES = {"faces": (0.8, 1.2), "cats": (0.8, 1.2), "bodies": (0.7, 1.0)}
TEST_COUNT = 3000  # frames of a test of rendered things
ALIKE = {"train": 1, "test": 16, "all": 1}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
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
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N",
                        help="processes; the frames do not depend on it (one for each core)")
    what = parser.add_argument_group("what they show",
                                     "Shares of all frames; the rest are photographs alone.")
    what.add_argument("--concept", choices=tuple(LABELS), default="faces",
                      help="what labels are about; cats and bodies are rendered, put on "
                      "photographs (faces)")
    for position, (name, means) in enumerate((
            ("faces", "real faces"), ("heads", "rendered heads; cats or bodies, where the labels "
                                      "are about these"),
            ("others", "rendered things that the labels are not about"), ("cutouts", "cut-outs"))):
        given = ", ".join(f"{split} {shares[position]}" for split, shares in SHARES.items())
        also = ", ".join(f"{split} {shares[position]}" for split, shares in RENDERED.items())
        what.add_argument(f"--{name}", type=float, metavar="SHARE",
                          help=f"{means} ({given}; cats and bodies: {also})")
    how = parser.add_argument_group("how")
    how.add_argument("--face-size", **pair,
                     help="height of faces and heads, chin to crown, as a share of the frame; more "
                     "where a picture shows nothing around the face; of cats chin to ears, of "
                     "bodies soles to crown (0.8 1.2, bodies 0.7 1.0)")
    how.add_argument("--cutout-size", **pair, default=(0.3, 0.9),
                     help="longer side of cut-outs (0.3 0.9)")
    how.add_argument("--place", type=_reach, default="centre", metavar="centre|anywhere|REACH",
                     help="of faces, heads, cut-outs: near the middle, wherever they are whole, or "
                     "up to this share of the frame from the middle, either way, cut by its edge "
                     f"if need be (centre, which is {CENTRED})")
    how.add_argument("--pairs", action="store_true",
                     help="frames come in twos, which show the same at two places, as two frames "
                     "of a film do")
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


def _reach(text: str) -> float | None:
    """Read a place: how far from the middle; None: wherever things are whole."""
    if text == "anywhere":
        return None
    try:
        return CENTRED if text == "centre" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'centre' nor 'anywhere' nor a share "
                                         "of the frame, such as 0.2") from None


def run(args: argparse.Namespace) -> None:
    """Compose frames, write them as a dataset, print what they show."""
    recipe = _recipe(args)
    if args.count is not None:
        check_range("count", args.count, 1, 10**9)
    check_range("jobs", args.jobs, 1, 4096)
    count = args.count
    if count is None and args.split == "test" and args.concept != "faces":
        count = TEST_COUNT
    composed = compose_frames(args.folder, args.out, recipe, count, args.jobs)
    print(f"{args.out}: {len(composed.kinds)} frames of {recipe.size}x{recipe.size} "
          f"{args.channels}, split {recipe.split}")
    print(composed.table())
    print(composed.cues())


def _recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that is asked for; what is left open depends on the split."""
    shares = SHARES if args.concept == "faces" else RENDERED
    faces, heads, others, cutouts = (
        default if given is None else given for given, default in zip(
            (args.faces, args.heads, args.others, args.cutouts), shares[args.split]))
    return Recipe(split=args.split, seed=args.seed, size=args.size,
                  channels={"grey": 1, "rgb": 3}[args.channels],
                  faces=faces, heads=heads, cutouts=cutouts, test_share=args.test_share,
                  face_size=tuple(args.face_size or SIZES[args.concept]),
                  cutout_size=tuple(args.cutout_size),
                  reach=args.place, pairs=args.pairs, pixels=args.pixels,
                  alike=ALIKE[args.split] if args.alike is None else args.alike,
                  head_bank=args.head_bank, yaw=args.yaw, concept=args.concept, others=others)
