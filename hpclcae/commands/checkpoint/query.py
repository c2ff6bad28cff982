"""The command ``hpclcae checkpoint query``: arithmetic over the arrays of checkpoints."""
import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpclcae.checkpoint.query import (Answer, Block, Query, Rows, Sources, answer, axes,
                                      check_result, sources)
from hpclcae.commands.arguments import whole
from hpclcae.utils.errors import InputError, one_line, shown
from hpclcae.utils.files import replacing
from hpclcae.utils.progress import progress
from hpclcae.utils.summary import QUANTILES, Summary
from hpclcae.utils.tables import table

FEW = 8       # blocks that are over before anybody asks
WIDEST = 40   # characters of a histogram's bar


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT_OR_RUN",
                        help="a checkpoint, a run folder for its newest, or a neurons.h5")
    parser.add_argument(
        "expression", metavar="EXPRESSION", nargs="*",
        help="such as 'abs(stage1.encode)', of two files 'rms(a.stage1.encode - b.stage1.encode)'; "
             "rms, mean, sum, norm, min and max give one number per filter; put (-x), not -x first")
    parser.add_argument("--and", dest="second", metavar="CHECKPOINT_OR_RUN",
                        help="a second file: names are a.NAME of the first, b.NAME of this one")
    parser.add_argument("--where", metavar="CONDITION",
                        help="such as 'stage3.auc > 0.7', of the same shape as EXPRESSION: "
                             "summarise and list the places where it holds")
    parser.add_argument("--sort", action="store_true", help="list the largest values first")
    parser.add_argument("--limit", type=whole(1, 10 ** 7), metavar="N", default=50,
                        help="places to list at most (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.h5",
                        help="write the whole result to an HDF5 file")
    parser.add_argument("--csv", type=Path, metavar="FILE",
                        help="write the places that are listed")
    parser.add_argument("--list", action="store_true",
                        help="print names, shapes and types of the arrays; takes no EXPRESSION")


def run(args: argparse.Namespace) -> None:
    """Print a summary of the result, and its places if --where, --sort or --csv asks for them."""
    _check_expression(args)
    with sources(args.checkpoint, args.second) as found:
        if args.list:
            lines = [_arrays(found)]
        else:
            if args.csv:
                check_result(args.csv, found, _is_table)
                if args.out and args.out.resolve() == args.csv.resolve():
                    raise InputError(f"--out and --csv are both {args.out}: choose two names")
            query = Query(args.expression[0], found)
            chosen = Query(args.where, found, "--where") if args.where is not None else None
            listed = args.where is not None or args.sort or args.csv
            result = answer(query, chosen, args.limit if listed else 0, args.sort, args.out,
                            _watched)
            lines = [*_origin(found), *_described(query, result, args.sort)]
    # Only now, since an error of the terminal would be taken for one of the file that is read.
    print("\n".join(lines))
    if args.list:
        return
    if args.csv and result.rows:
        _write(args.csv, query.axes, result.rows)
    for path in filter(None, (args.out, args.csv)):
        print(f"wrote {path}")


def _check_expression(args: argparse.Namespace) -> None:
    """See that there is one expression, or none with --list."""
    given = args.expression
    if args.list and given:
        raise InputError(f"--list prints the names of the arrays and takes no EXPRESSION: leave "
                         f"out {shown(given[0])}, or --list")
    if not args.list and not given:
        raise InputError("no EXPRESSION: give one, such as 'rms(stage1.encode)', or --list for "
                         "the names of the arrays")
    if len(given) > 1:
        second = "" if args.second else (f"; for two checkpoints: {args.checkpoint} --and "
                                         f"{one_line(given[0], 60)} EXPRESSION")
        raise InputError(f"{len(given)} EXPRESSIONs where there is one, the first is "
                         f"{shown(given[0])}: write it in quotes{second}")


def _watched(blocks: Sequence[tuple[int, Block]]) -> Iterable[tuple[int, Block]]:
    return progress(blocks, "query", unit="blocks") if len(blocks) > FEW else blocks


def _arrays(found: Sources) -> str:
    return table(["name", "axes", "shape", "type"],
                 [[name, " x ".join(axes(data)), " x ".join(map(str, data.shape)), str(data.dtype)]
                  for name, data in found.arrays.items()])


def _origin(found: Sources) -> list[str]:
    names = ["a: ", "b: "] if len(found.paths) == 2 else [""]
    return [f"{name}{path} (step {step})"
            for name, path, step in zip(names, found.paths, found.steps)]


def _described(query: Query, result: Answer, by_value: bool) -> list[str]:
    shape = " x ".join(map(str, query.shape))
    lines = [f"{query.expression.text}: {' x '.join(query.axes)} = {shape}"]
    if not result.count:
        lines.append("no place fulfils the condition" if query.shape and min(query.shape) else
                     "it has no numbers")
    elif result.summary is None:
        lines.append(f"true for {result.true:,} of {result.count:,}")
    else:
        lines += _summary(result.summary)
    if result.rows and result.rows.count:
        listed = len(result.rows.values)
        order = "the largest first" if by_value else "in order"
        lines += ["", f"{result.rows.count:,} places, {listed:,} listed, {order}:",
                  table([*query.axes, "value"],
                        [[*map(int, place), _rounded(value)]
                         for place, value in zip(result.rows.places, result.rows.values)])]
    return lines


def _summary(summary: Summary) -> list[str]:
    measures = [summary.mean, summary.rms, summary.minimum, summary.maximum]
    lines = [table(["numbers", "not finite", "mean", "root mean square", "smallest", "largest"],
                   [[summary.count, summary.not_finite, *map(_rounded, measures)]]), "",
             table([f"{percent} %" for percent in QUANTILES],
                   [[_rounded(value) for value in summary.quantiles]])]
    most = summary.histogram.max()
    if most:
        edges = summary.edges
        rows = [[_rounded(low), _rounded(high), int(count), "#" * round(WIDEST * count / most)]
                for low, high, count in zip(edges, edges[1:], summary.histogram)]
        lines += ["", table(["from", "to", "numbers", ""], rows)]
    return lines


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _is_table(path: Path) -> bool:
    """Whether a file is a table that `_write` may have written."""
    with path.open("rb") as file:
        return file.readline(1000).rstrip().endswith(b",value")


def _write(path: Path, names: Sequence[str], rows: Rows) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "value"])
        writer.writerows([*map(int, place), float(value)]
                         for place, value in zip(rows.places, rows.values))
