"""What many tests share: a tiny dataset of structured images, the tiny configuration, the command line."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from hpclcae import config as configuration
from hpclcae.dataset import DatasetWriter

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

RUN = Path(__file__).parent.parent / "run"
SIZE, COUNT = 24, 60


def structured_images(count, size=SIZE, channels=1, seed=0):
    """Gabor patches at random places, uint8 (image, row, col, channel): something that there is to learn."""
    generator = np.random.default_rng(seed)
    row, col = np.mgrid[:size, :size] - size / 2
    images = []
    for _ in range(count):
        angle, frequency, phase = generator.uniform([0, 0.15, 0], [np.pi, 0.35, 2 * np.pi])
        top, left, width = generator.uniform([-size / 4, -size / 4, size / 8], [size / 4, size / 4, size / 3])
        wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * row + np.sin(angle) * col) + phase)
        spot = np.exp(-((row - top) ** 2 + (col - left) ** 2) / (2 * width ** 2))
        tint = generator.uniform(60, 120, channels)
        noise = generator.normal(0, 6, (size, size, channels))
        images.append(128 + (wave * spot)[..., None] * tint + noise)
    return np.clip(images, 0, 255).astype(np.uint8)


def write_dataset(path, images, labels=None):
    """A dataset file of the given images (image, row, col, channel); every image is a group of its own."""
    names = None if labels is None else ["other", "face"]
    with DatasetWriter(path, images.shape[1], images.shape[3], names) as writer:
        for i, image in enumerate(images):
            writer.append(image, source=f"made/{i}", group=f"made/{i}", original=image.shape[:2],
                          crop=(0, 0, *image.shape[:2]), label=-1 if labels is None else int(labels[i]))
    return path


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """Path of an unlabelled dataset that fits run/tiny.toml."""
    return write_dataset(tmp_path_factory.mktemp("data") / "train.h5", structured_images(COUNT))


@pytest.fixture(scope="session")
def labelled_dataset(tmp_path_factory):
    """Path of a dataset that fits run/tiny.toml; images of the concept hold a bright square."""
    images, labels = structured_images(COUNT, seed=1), np.arange(COUNT) % 3 == 0
    images[labels, 8:16, 8:16] = 230
    return write_dataset(tmp_path_factory.mktemp("data") / "test.h5", images, labels.astype(int))


@pytest.fixture(scope="session")
def tiny_config(tiny_dataset):
    """run/tiny.toml on the tiny dataset, with ``key=value`` changes."""
    def load(*changes):
        return configuration.load(RUN / "tiny.toml", [f"data.train={tiny_dataset}", *changes])
    return load


@pytest.fixture(scope="session")
def hpclcae():
    """Run ``python -m hpclcae ARGUMENTS`` as a process; returns it with its text output."""
    def run(*arguments, timeout=60, **options):
        return run_limited([sys.executable, "-m", "hpclcae", *map(str, arguments)], timeout, **options)
    return run


def run_limited(command, timeout, **options):
    """Run a command in a process group of its own; what it started is killed when the time is over."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
