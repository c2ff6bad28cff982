"""bench scaling: under srun, and with images that grow. No test asserts a time."""
import argparse

import pytest

from hpclcae import config as configuration
from hpclcae.bench import scaling
from hpclcae.geometry import training_flop
from tests.support.processes import RUN


def arguments(*words):
    parser = argparse.ArgumentParser()
    scaling.configure(parser)
    return parser.parse_args([str(RUN / "plain.toml"), *map(str, words)])


@pytest.mark.parametrize("ranks, nodes, each", [(2, 1, 2), (4, 1, 4), (6, 2, 4), (8, 2, 4)])
def test_srun_fills_whole_nodes(ranks, nodes, each):
    start = scaling.launcher(arguments("--srun", 4, "--srun-mpi", "pmix", "--limit", 61))
    assert start(ranks) == ["srun", f"--nodes={nodes}", f"--ntasks={ranks}",
                            f"--ntasks-per-node={each}", "--mpi=pmix",
                            "--kill-on-bad-exit=1", "--time=2"]


@pytest.mark.parametrize("case", [[], ["--stage", 40]])
def test_weak_scaling_grows_the_image_and_counts_its_work(case):
    args = arguments("--weak", "--ranks", 1, 4, *case)
    before = 40 if case else 32
    assert [scaling.side(args, ranks) for ranks in (1, 4)] == [before, 2 * before]
    assert scaling.work(args, 1) == 1
    if not case:
        small, large = (training_flop(configuration.load(RUN / "plain.toml", [f"data.size={n}"]))
                        for n in (32, 64))
        assert scaling.work(args, 4) == large / small > 4
    strong = arguments("--ranks", 1, 4, *case)
    assert scaling.side(strong, 4) == before and scaling.work(strong, 4) == 1


def test_the_plot_is_a_picture(tmp_path):
    scaling.draw(tmp_path / "plot.png", "a case", [1, 2, 4], [1.0, 1.9, 3.5])
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
