"""The command ``hpclcae checkpoint reshard``: the same checkpoint in another number of shards, as a
run of its own."""
import argparse

from hpclcae import checkpoint, config as configuration
from hpclcae.checkpoint import Committer, ShardWriter
from hpclcae.commands.arguments import output, positive
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.chunks import Shards
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replace_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT_OR_RUN",
                        help="a checkpoint, or a run folder for its newest")
    parser.add_argument("--shards", required=True, type=positive, metavar="N",
                        help="files to write the weights to")
    parser.add_argument("--out", required=True, type=output, metavar="RUN",
                        help="new run folder; --resume goes on in it")


def run(args: argparse.Namespace) -> None:
    """Write the shards one after the other: only one of them is in memory at a time."""
    path = checkpoint.find(args.checkpoint)
    state = checkpoint.load_state(path)
    layout = Layout(state.config)
    tiles = sum(plan.shape[0] * plan.shape[1] for plan in layout.block(0).filters.values())
    if args.shards > tiles:
        raise InputError(f"--shards {args.shards}: the weights are {tiles:,} tiles, and a shard "
                         f"holds at least one: at most {tiles}")
    shards = Shards(layout, args.shards)
    if checkpoint.saved(args.out / "checkpoints"):
        raise InputError(f"{args.out} already holds checkpoints: choose another --out")
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        raise InputError(f"--out {args.out} exists and is not an empty folder: choose another")
    checkpoint.clean(args.out)
    committer = Committer(args.out, args.shards)
    committer.start(state)
    try:
        for number in range(args.shards):
            writer = ShardWriter(args.out, number, layout)
            held = checkpoint.load_chunk_states(path, layout, shards.held_by(number))
            writer.start(state.step, held)
            writer.wait()
            writer.close()
        committer.wait()
    finally:
        committer.close()
    for name, text in (("configuration.toml", configuration.dumps(state.config)),
                       ("metrics.jsonl", state.metrics)):
        replace_text(args.out / name, text)
    print(f"{committer.committed}: {args.shards} shards")
