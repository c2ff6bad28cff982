"""The command ``hpclcae checkpoint info``: what is in a checkpoint, and where it comes from."""
import argparse
import json

import h5py
import numpy as np

from hpclcae import checkpoint
from hpclcae.checkpoint.metrics_log import records
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT_OR_RUN",
                        help="a checkpoint, or a run folder for its newest")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--configuration", action="store_true",
                      help="print the TOML text that made it, and nothing else")
    text.add_argument("--metrics", action="store_true",
                      help="print the lines of metrics up to it, and nothing else")


def run(args: argparse.Namespace) -> None:
    """Print step, origin, and a table of the parameters."""
    path = checkpoint.find(args.checkpoint)
    state = checkpoint.load_state(path)
    with checkpoint.opened(path) as file:
        if args.configuration:
            text = str(file.attrs["configuration"])
        elif args.metrics:
            text = state.metrics
        else:
            text = "\n".join([
                f"{path}: step {state.step} of {state.config.train.steps}, {state.seconds:,.0f} s "
                "of training", _origin(file),
                f"next step of every replica: {' '.join(map(str, state.cursors))}",
                *(f"objective in step {last['step']}: {last['objective']:.6g}"
                  for last in records(state.metrics.encode(), "objective")[-1:]), "",
                table(["parameter", "row x col x krow x kcol x map in x map", "type", "numbers",
                       "root mean square", "updates"], _rows(file, state.config.train.dtype)), ""])
    # Only now, since an error of the terminal would be taken for one of the file that is read.
    print(text, end="")


def _origin(file: h5py.File) -> str:
    versions = json.loads(str(file.attrs["versions"]))
    host = f" on {file.attrs['host']}" if file.attrs.get("host") else ""
    revision = f", revision {file.attrs['revision']}" if file.attrs.get("revision") else ""
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join([
        f"written {file.attrs['created']}{host}", f"by {software}{revision}",
        f"{file.attrs['shards']} shards, run {file.attrs['run']}" if "shards" in file.attrs
        else "one file"])


def _rows(file: h5py.File, dtype: str) -> list[list[object]]:
    counts = checkpoint.update_counts(file)
    slots = list(file["update"]) if "update" in file else []
    rows: list[list[object]] = []
    for name in counts:
        for prefix in ("", *(f"update/{slot}/" for slot in slots)):
            data = file[prefix + name]
            squares = sum(float(np.square(data[row], dtype=np.float64).sum())
                          for row in range(data.shape[0]))
            rows.append([prefix + name, " x ".join(map(str, data.shape)), dtype, data.size,
                         float(f"{np.sqrt(squares / data.size):.3g}"),
                         "" if prefix else counts[name]])
    return rows
