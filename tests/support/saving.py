"""Checkpoints written in one process, whoever is to own the shards."""
from collections.abc import Sequence
from pathlib import Path

from hpclcae import checkpoint
from hpclcae.checkpoint import BlockState, Committer, Holding, RunState, ShardWriter
from hpclcae.checkpoint.state import views
from hpclcae.config import Config
from hpclcae.partition import Grid
from hpclcae.shards import Chunk, Shards

WHOLE = Grid(1, 1)


def owned_chunks(config: Config, grid: Grid, owners: int) -> list[list[Chunk]]:
    """The chunks of every owner, as parameter servers would have them."""
    shards = Shards(config, grid, owners)
    return [shards.held_by(number) for number in range(owners)]


def save(run: Path, state: BlockState, owners: int = 1) -> Path:
    """Write a checkpoint of a whole network as so many shards; returns its folder."""
    holdings = [views(chunks, state.parameters, state.update_state, state.counts)
                for chunks in owned_chunks(state.config, WHOLE, owners)]
    return save_holdings(run, state, WHOLE, holdings)


def save_holdings(run: Path, state: RunState, grid: Grid, owners: Sequence[Sequence[Holding]]) -> Path:
    """Write a checkpoint of what every owner holds; returns its folder."""
    checkpoint.clean(run)
    writers = [ShardWriter(run, number, state.config, grid) for number in range(len(owners))]
    committer = Committer(run, len(owners))
    committer.start(state)
    for writer, holdings in zip(writers, owners):
        writer.start(state.step, holdings)
    for part in (*writers, committer):
        part.wait()
        part.close()
    return checkpoint.step_folder(run, state.step)
