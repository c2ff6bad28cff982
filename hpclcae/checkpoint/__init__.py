"""Checkpoints: a folder for every step, sharded, committed by its manifest, for plain h5py.

``RUN/checkpoints/step-00000200/`` (notes/checkpoints.md)::

    shard-0000.h5 ...   one for every owner: a parameter server, or a block where there are none
        stage1/encode/0, update/<slot>/stage1/encode/0 ...
                            rectangles of positions: attributes row, col
        chunks              count and version of every chunk
    model.h5            the shards shown as one model, by virtual datasets with relative names
        stage1/encode, stage1/decode
                            weights by position (row, col, krow, kcol, map in, map)
        update/<slot>/stage1/encode
                            the optimizer's slots, same axes
        preprocess/kernel, preprocess/eigenvalues
        places              array, shard, rectangle, offset in bytes: where every part lies, for
                            readers without HDF5
        chunks              of all shards
        cursors, metrics    next step of every replica; lines of metrics.jsonl
        attributes: kind, schema, run, step, seconds, shards, configuration (TOML), created,
        versions, revision, host
    manifest.json       size and CRC-32 of every file; written last: with it the folder is whole

Weights are stored by position, not in the kernel's layout, so any tile size, grid, number of
servers or version can load them. ``encode`` are the learned weights; normalised filters are
``encode / ||encode||`` (layers/unit_norm.py).

Every owner has a `ShardWriter`, one rank has the `Committer`; `clean` comes first. `load`,
`load_chunk_states` and `load_state` read. A single file of schema 1 (attribute counts instead of
chunks) is read too.

An outsider begins with what this module itself offers, and `trained.py`::

    trained.py       Model: a trained network to ask: images in, responses of every stage out
    state.py         RunState, ChunkState: what a run needs to go on, what an owner holds
    folder.py        names, the manifest that commits, sizes and checksums, cleaning up
    regions.py       from chunks to rectangles of positions
    shard_file.py    one owner's file
    model_file.py    model.h5: all shards as one model
    writer.py        ShardWriter: an owner writes while training goes on
    committer.py     Committer: a checkpoint out of the shards of all owners
    reading.py       each rank its own part, on any grid and any number of servers
    metrics_log.py   lines of metrics, of which some may be damaged
    event_log.py     who fetched and pushed which version, in order (hpclcae replay)
    query.py         arithmetic over the arrays, in little memory (hpclcae checkpoint query)
"""
from hpclcae.checkpoint.committer import Committer
from hpclcae.checkpoint.folder import (KIND, SCHEMA, check, clean, find, read_manifest, saved,
                                       step_folder, step_of, verify)
from hpclcae.checkpoint.reading import (fill, load, load_block, load_chunk_states, load_state,
                                        opened, update_counts)
from hpclcae.checkpoint.state import BlockState, ChunkState, RunState, block_chunk_states
from hpclcae.checkpoint.writer import ShardWriter

__all__ = ["BlockState", "ChunkState", "Committer", "KIND", "RunState", "SCHEMA", "ShardWriter",
           "block_chunk_states", "check", "clean", "fill", "find", "load", "load_block",
           "load_chunk_states", "load_state", "opened", "read_manifest", "saved", "step_folder",
           "step_of", "update_counts", "verify"]
