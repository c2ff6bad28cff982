"""Small networks for tests that sweep geometries."""
from hypothesis import strategies as st

from hpclcae import config as configuration
from hpclcae.config import Config, DataConfig, StageConfig
from hpclcae.geometry import LCN_LOSES, windows

BORDERS = "clip", "valid", "centre", "same"


def network(size, *stages, **train):
    """A configuration with grey images; a stage is a dict of settings."""
    changed = configuration.TrainConfig(**train)
    return Config(DataConfig(size=size, channels=1), stages=tuple(StageConfig(**s) for s in stages),
                  train=changed)


@st.composite
def networks(draw):
    """Small networks of one to three stages whose windows fit."""
    size = draw(st.integers(5, 40))
    rows, stages = size, []
    for _ in range(draw(st.integers(1, 3))):
        field = draw(st.integers(1, min(rows, 9)))
        stride = draw(st.integers(1, 4))
        rows = windows(rows, field, stride)
        pooling = draw(st.integers(1, min(rows, 4)))
        pooling_stride = draw(st.integers(1, 3))
        rows = windows(rows, pooling, pooling_stride)
        border = draw(st.sampled_from(BORDERS))
        lcn = draw(st.sampled_from([n for n in (0, 1, 3, 5)
                                    if n + (n - 1) * (border == "valid") <= rows]))
        rows -= max(0, lcn - 1) * LCN_LOSES[border]
        stages.append({"receptive_field": field, "stride": stride, "pooling": pooling, "maps": 2,
                       "lcn": lcn, "pooling_stride": pooling_stride, "lcn_border": border})
    return network(size, *stages)
