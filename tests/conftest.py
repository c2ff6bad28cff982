"""What many tests share: a tiny dataset, the tiny configuration, the command line."""
import signal
import sys

import numpy as np
import pytest
from hypothesis import settings

from hpclcae import config as configuration
from tests.support.images import COUNT, structured_images, write_dataset
from tests.support.processes import RUN, run_limited

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

# A job in the background of a shell has SIGINT ignored; processes that tests interrupt would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """Where workers share the tests, a file goes to one of them, and the SLURM cluster to one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return "tests/slurm" if file.startswith("tests/slurm/") else file
    return ByFile(config, log)


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
        return run_limited([sys.executable, "-m", "hpclcae", *map(str, arguments)], timeout,
                           **options)
    return run
