"""A small run folder with checkpoint and metrics, and datasets: seconds of work, real formats."""
import json
from pathlib import Path

import numpy as np

from hpclcae.checkpoint import BlockState
from hpclcae.config import Config, DataConfig, PreprocessConfig, StageConfig, TrainConfig
from hpclcae.data.dataset import Dataset
from hpclcae.data.writer import DatasetWriter
from hpclcae.model import preprocess
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.optimizers import SLOTS
from tests.support.saving import save

SIZE = 12
STAGES = (StageConfig(receptive_field=4, maps=3, pooling=2, lcn=3, weights="tied",
                      encoder_norm="unit"),
          StageConfig(receptive_field=3, maps=2, pooling=2, lcn=0))


def write_images(path: Path, count: int, *, labels: bool, channels: int = 1, size: int = SIZE,
                 seed: int = 0) -> None:
    """Noise, with a bright middle in the images that show the concept.

    Every ninth label is unknown.
    """
    rng = np.random.default_rng(seed)
    with DatasetWriter(path, size, channels, ["other", "face"] if labels else None) as writer:
        for number in range(count):
            image = rng.integers(0, 120, (size, size, channels))
            shows = number % 5 in (0, 2)
            image[4:8, 4:8] += 50 * shows
            writer.append(image.astype(np.uint8), source="", group=f"made/{number // 10}-{shows}",
                          crop=(0, 0, 1, 1), original=(size, size),
                          label=(-1 if number % 9 == 8 else int(shows)) if labels else -1)


def write_run(folder: Path, stages: tuple[StageConfig, ...] = STAGES, channels: int = 1,
              name: str = "run", weights: int = 5, test: str = "test.h5") -> Path:
    """Make train.h5, test.h5 and a run of 20 steps whose weights are random, drawn from `weights`.

    Returns the folder of the run.
    """
    write_images(folder / "train.h5", 60, labels=False, channels=channels, seed=1)
    write_images(folder / "test.h5", 120, labels=True, channels=channels, seed=2)
    config = Config(data=DataConfig(str(folder / "train.h5"), str(folder / test), SIZE,
                                    channels), preprocess=PreprocessConfig(whitening=3),
                    stages=stages, train=TrainConfig(dtype="float64"))
    network = Network(Layout(config))
    with Dataset(folder / "train.h5") as train:
        preprocessing = preprocess.fit(config.preprocess, train.read(np.arange(60)))
    run = folder / name
    memory = {slot: network.parameters() for slot in SLOTS[config.update.rule]}
    save(run, BlockState(config=config, step=20, preprocessing=preprocessing, cursors=(20,),
                         parameters=network.parameters(weights), update_state=memory), 2)
    terms = {"reconstruction": 30.0, "sparsity": 2.0, "response": 0.5}
    lines = [{"step": step, "seconds": step * 0.1, "objective": 90.0 / step, "stages": [terms]
              * len(stages), "images_per_second": 100.0, "gflop_per_second": 3.0, "rate": 0.02}
             for step in range(5, 25, 5)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def write_metrics(run):
    """Twenty lines of metrics, one a step, in place of those of `write_run`."""
    lines = [{"step": step, "seconds": 2.0 * step, "objective": 100.0 - step}
             for step in range(1, 21)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_parallel(run, workers=((0, 0), (0, 1), (1, 0), (1, 1)), servers=2, transport="messages"):
    """What the ranks of a job leave, in an order that is not that of the figure."""
    counts = [0, 6, 2] + [0] * 62
    ranks = [{"role": f"server {n}", "node": "a", "transport": transport, "seconds": 10.0,
              "cpu_seconds": 1.5, "staleness": counts if transport == "messages" else [],
              "wait_seconds": 8.0} for n in range(servers)]
    ranks += [{"role": f"replica {r} block {b}", "node": "a", "transport": transport,
               "seconds": 10.0, "cpu_seconds": 9.0, "steps": 20, "fetched_bytes": 4e7,
               "pushed_bytes": 2e7, "wait_seconds": 2.0 + r, "training_seconds": 8.0,
               "staleness": [] if transport == "messages" else counts} for r, b in workers]
    (run / "parallel.json").write_text(json.dumps(ranks[::-1]))
    text = (run / "metrics.jsonl").read_text()
    for replica in {r for r, _ in workers} - {0}:
        (run / f"metrics-replica{replica}.jsonl").write_text(
            text.replace('"objective": ', '"objective": 1'))
