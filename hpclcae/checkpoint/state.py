"""What a checkpoint holds, as the programs see it.

That is the state of a run, and what every owner holds of the parameters.
"""
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hpclcae.config import Config
from hpclcae.data.dealing import Deal
from hpclcae.data.minibatches import ORDER
from hpclcae.model.conditioner import Conditioner
from hpclcae.model.layout import BlockLayout
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.preprocess import Preprocessing
from hpclcae.parameter_server.chunks import Chunk, block_chunks


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run needs to go on, beside its parameters.

    Attributes
    ----------
    step : int
        Finished steps (with parameter servers: of the replica that is furthest behind).
    conditioners : tuple of Conditioner or None
        What stands above each stage, as far as fitted, and what standardises a classifier's
        features; none at all in older checkpoints.
    categories : tuple of str
        Names of the classes, where there is a classifier.
    seconds : float
        Training time so far.
    cursors : tuple of int
        The next step of every replica. A minibatch and its mirroring are a function of (seed,
        deal, replica, step), so this is the cursor in the data and the state of the random numbers.
    deal : Deal
        How images are dealt to these replicas.
    metrics : str
        Lines of metrics.jsonl up to `step`.
    order : int
        How images are drawn (data/minibatches.ORDER).
    """
    config: Config
    step: int
    preprocessing: Preprocessing
    conditioners: tuple[Conditioner | None, ...] = ()
    categories: tuple[str, ...] = ()
    seconds: float = 0.0
    cursors: tuple[int, ...] = ()
    deal: Deal = Deal()
    metrics: str = ""
    order: int = ORDER


@dataclass(frozen=True, kw_only=True)
class BlockState(RunState):
    """The same with one block's parameters and its update rule's memory (optimizers.Optimizer)."""
    parameters: ParameterVector
    update_state: dict[str, ParameterVector] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class ChunkState:
    """One chunk as its owner holds it.

    Attributes
    ----------
    values : (tile row, tile col, input, unit)
        Its weights, of shape chunk.shape.
    state : dict of str to ndarray
        The update rule's memory, one array of the same shape for every slot.
    count, version : int
        Updates that the weights have had, as the update rule counts them and as fetches are
        numbered.
    """
    chunk: Chunk
    values: np.ndarray
    state: dict[str, np.ndarray] = field(default_factory=dict)
    count: int = 0
    version: int = 0


def block_chunk_states(block: BlockLayout, parameters: ParameterVector,
                       update_state: Mapping[str, ParameterVector],
                       counts: Mapping[str, int]) -> list[ChunkState]:
    """A block's parameters, one chunk for each: views, so they follow every update."""
    return views(block_chunks(block, sys.maxsize), parameters, update_state, counts)


def views(chunks: Sequence[Chunk], parameters: ParameterVector,
          update_state: Mapping[str, ParameterVector],
          counts: Mapping[str, int]) -> list[ChunkState]:
    """Chunks that are views of a block's vectors."""
    def view(vector: ParameterVector, chunk: Chunk) -> np.ndarray:
        return vector.vector[chunk.start:chunk.stop].reshape(chunk.shape)
    return [ChunkState(chunk, view(parameters, chunk),
                       {slot: view(v, chunk) for slot, v in update_state.items()},
                       counts.get(chunk.name, 0), counts.get(chunk.name, 0)) for chunk in chunks]
