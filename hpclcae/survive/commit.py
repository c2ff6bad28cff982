"""A checkpoint that the servers have taken and that no replica is left to commit."""
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hpclcae import checkpoint
from hpclcae.checkpoint import Committer, RunState
from hpclcae.checkpoint.metrics_log import metrics_path
from hpclcae.config import Config
from hpclcae.parameter_server.roles import joint_step
from hpclcae.training.metrics import metrics_to_save
from hpclcae.training.resume import fit_preprocessing, open_dataset


def commit_alone(run: Path, config: Config, start: Path | None, clocks: Sequence[int],
                 seconds: float) -> None:
    """Wait for the shards, and write what makes them a checkpoint.

    Parameters
    ----------
    start : Path or None
        The checkpoint that the job began with.
    clocks : sequence of int (replicas,)
        Steps that the replicas have made.
    seconds : float
        Training time of the job so far.
    """
    with open_dataset(config) as dataset:
        fitted = (checkpoint.load_state(start) if start else
                  RunState(config=config, step=0,
                           preprocessing=fit_preprocessing(config, dataset)))
    committer = Committer(run, config.parallel.servers)
    committer.start(dataclasses.replace(
        fitted, config=config, step=joint_step(clocks), cursors=tuple(clocks), seconds=seconds,
        metrics=metrics_to_save(metrics_path(run))))
    committer.wait()
    committer.close()
