"""Sizes: the paper's integers, and everything else against counting windows one by one."""
from dataclasses import replace
from itertools import product

import pytest

from hpclcae import config as configuration
from hpclcae.config import Config, DataConfig, StageConfig, TrainConfig
from hpclcae.geometry import (network_geometry, pixels_seen, receptive_field, stage_geometry,
                              training_flop, windows)
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN


def starts(size, window, stride):
    """First positions of all whole windows, found by trying every position."""
    return [first for first in range(size) if first % stride == 0 and first + window <= size]


def test_the_paper_has_1_144_863_072_weights_and_an_output_of_125_x_125_x_8():
    config = configuration.load(RUN / "paper.toml")
    stages = network_geometry(config)
    assert sum(s.encoder_weights for s in stages) == 1_144_863_072
    assert [s.encoder_weights for s in stages] == [260_410_464, 517_653_504, 366_799_104]
    assert sum(s.parameters for s in stages) == 2 * 1_144_863_072
    assert [s.filtered for s in stages] == [(183, 183, 8), (158, 158, 8), (133, 133, 8)]
    assert [s.pooled for s in stages] == [(179, 179, 8), (154, 154, 8), (129, 129, 8)]
    assert [s.output for s in stages] == [(175, 175, 8), (150, 150, 8), (125, 125, 8)]
    assert pixels_seen(config) == (26, 51, 76)
    assert training_flop(config) == 13_217_535_936  # 13.2 GFLOP
    # 2 FLOP per weight for encode, decode, dZ, dW1, dW2 in every stage and for dX in the upper two.
    assert training_flop(config) == 2 * (5 * 260_410_464 + 6 * (517_653_504 + 366_799_104))


def test_nested_valid_windows_of_contrast_normalisation_lose_8_positions_a_stage():
    config = configuration.load(RUN / "paper.toml",
                                [f"stages.{i}.lcn_border=valid" for i in range(3)])
    stages = network_geometry(config)
    assert stages[2].output == (113, 113, 8)
    assert sum(s.encoder_weights for s in stages) == pytest.approx(1.08e9, rel=0.03)


def test_windows_are_counted_right():
    for size, window, stride in product(range(1, 20), range(1, 12), range(1, 8)):
        expected = len(starts(size, window, stride))
        assert windows(size, window, stride) == expected, (size, window, stride)


SWEEP = list(product((7, 12, 13), (9, 16), (1, 3, 4), (1, 2, 3), (1, 2, 3), (1, 2), (0, 3)))


def test_every_shape_of_a_stage_agrees_with_counting():
    fitted = 0
    for rows, cols, field, stride, pooling, pooling_stride, lcn in SWEEP:
        stage = StageConfig(receptive_field=field, stride=stride, maps=5, pooling=pooling,
                            pooling_stride=pooling_stride, lcn=lcn)
        filtered = [len(starts(n, field, stride)) for n in (rows, cols)]
        pooled = [len(starts(n, pooling, pooling_stride)) for n in filtered]
        output = [len(starts(n, lcn, 1)) for n in pooled] if lcn else pooled
        if min(filtered + pooled + output) == 0:
            with pytest.raises(InputError, match="does not fit"):
                stage_geometry(stage, rows, cols, 2)
            continue
        fitted += 1
        plan = stage_geometry(stage, rows, cols, 2)
        assert plan.input == (rows, cols, 2)
        found = plan.filtered, plan.pooled, plan.output
        assert found == ((*filtered, 5), (*pooled, 5), (*output, 5))
        assert plan.fan_in == field * field * 2
        assert plan.encoder_weights == filtered[0] * filtered[1] * 5 * plan.fan_in
        assert plan.parameters == 2 * plan.encoder_weights
    assert len(SWEEP) / 3 < fitted < len(SWEEP)


def reaches(config):
    """Pixels that output (0, 0) of each stage sees along one axis, followed window by window."""
    sides = []
    for top in range(len(config.stages)):
        wanted = {0}
        for stage in reversed(config.stages[:top + 1]):
            steps = [(stage.receptive_field, stage.stride), (stage.pooling, stage.pooling_stride)]
            if stage.lcn:
                steps += [(stage.lcn, 1)] * (2 if stage.lcn_border == "valid" else 1)
            for window, stride in reversed(steps):
                wanted = {stride * y + k for y in wanted for k in range(window)}
        sides.append(max(wanted) - min(wanted) + 1)
    return tuple(sides)


@pytest.mark.parametrize("border", ["clip", "valid", "same"])
def test_pixels_seen_agree_with_following_the_windows_down(border):
    for stride, pooling_stride, lcn in product((1, 2, 3), (1, 2), (0, 3)):
        first = StageConfig(receptive_field=4, stride=stride, pooling=3,
                            pooling_stride=pooling_stride, lcn=lcn, lcn_border=border)
        second = replace(first, receptive_field=5, lcn=3 - lcn)
        config = Config(stages=(first, second, first))
        assert pixels_seen(config) == reaches(config), (stride, pooling_stride, lcn)


def test_a_receptive_field_is_where_the_strides_say():
    first = StageConfig(receptive_field=4, stride=2, pooling=3, pooling_stride=2)
    config = Config(data=DataConfig(size=60), stages=(first, first))
    side = pixels_seen(config)[1]
    assert receptive_field(config, 0, 0, 0) == (0, 0, pixels_seen(config)[0],
                                                pixels_seen(config)[0])
    assert receptive_field(config, 1, 0, 1) == (0, 16, side, 16 + side)
    whole = Config(data=DataConfig(size=60), stages=(replace(first, contrast=True), first))
    assert receptive_field(whole, 1, 1, 0) == (0, 0, 60, 60)


@pytest.mark.parametrize("change, key, size", [
    ("stages.0.receptive_field=25", "stages.0.receptive_field = 25", "24 x 24"),
    ("stages.0.pooling=21", "stages.0.pooling = 21", "20 x 20"),
    ("stages.0.lcn=19", "stages.0.lcn = 19", "18 x 18"),
    ("stages.2.receptive_field=9", "stages.2.receptive_field = 9", "8 x 8"),
    ("stages.2.pooling=6", "stages.2.pooling = 6", "5 x 5"),
    ("stages.2.lcn_border='valid'", "stages.2.lcn = 3", "1 x 1"),
    ("data.size=19", "stages.2.receptive_field = 4", "3 x 3"),
])
def test_a_window_that_does_not_fit_is_named_with_what_it_is_applied_to(change, key, size):
    config = configuration.load(RUN / "tiny.toml", [change])
    with pytest.raises(InputError) as caught:
        network_geometry(config)
    assert str(caught.value) == (f"{key} does not fit: its input has {size} positions; "
                                 "make the window smaller or the image larger")


def test_a_window_as_large_as_the_image_fits():
    config = Config(data=DataConfig(size=9, channels=1), stages=(
        StageConfig(receptive_field=9, pooling=1, lcn=0, maps=2),))
    assert network_geometry(config)[0].output == (1, 1, 2)


def test_flop_of_every_way_of_training():
    stages = (StageConfig(receptive_field=3, maps=2, pooling=2, lcn=0),
              StageConfig(receptive_field=2, maps=3, pooling=2, lcn=0))
    w1, w2 = 7 * 7 * 2 * 9, 5 * 5 * 3 * 8  # positions x maps x fan-in

    def flop(gradient):
        return training_flop(Config(data=DataConfig(size=9, channels=1), stages=stages,
                                    train=TrainConfig(gradient=gradient)))
    assert flop("stopped") == 10 * w1 + 10 * w2
    assert flop("joint") == 10 * w1 + 12 * w2
    assert flop("greedy") == (10 * w1 + (2 * w1 + 10 * w2)) // 2
