"""Ingests that are killed, and what two datasets have in common."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from hpclcae.data.dataset import Dataset

ROOT = Path(__file__).parents[2]


def contents(path):
    """All that is stored in a dataset: every array, as it is read through the file that is opened.

    Settings too, but for when it was written, and where.
    """
    found = {}
    with h5py.File(path, "r", locking=False) as file:
        def keep(name, item):
            if isinstance(item, h5py.Dataset) and not name.startswith("shards/"):
                values = item.asstr()[:] if item.dtype == object else item[:]
                found[name] = values.tolist() if name != "images" else values.tobytes()
        file.visititems(keep)
        found["licences"] = file.attrs["licences"]
    with Dataset(path) as dataset:
        found["settings"] = {key: value for key, value in dataset.settings.items() if key != "out"}
        found["shards"] = [(shard.first, shard.count, shard.fingerprint)
                           for shard in dataset.shards]
        np.testing.assert_array_equal(
            dataset.read(np.arange(dataset.count)).tobytes(), found["images"])
    return found


def command(*words):
    return [sys.executable, "-m", "hpclcae", "data", "ingest", *map(str, words)]


def killed_after(seconds, *words):
    """Start an ingest and kill it; says whether it had come to its end before.

    Only its first process is killed: the others end by themselves.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          env=environment) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        return process.wait(30) == 0


def killed_when(is_time, *words, limit=60):
    """The same, as soon as `is_time()` is true."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          env=environment) as process:
        end = time.monotonic() + limit
        while process.poll() is None and not is_time() and time.monotonic() < end:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        return process.wait(30) == 0
