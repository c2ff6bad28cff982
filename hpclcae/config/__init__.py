"""Configuration: what an experiment is.

``run/*.toml`` are named configurations; ``--set stages.0.maps=8`` changes one value.
An outsider begins with `settings.py`::

An outsider begins with `settings.py`::

    settings.py  every setting with its default, its unit or source
    checks.py    ranges, and combinations that no run could use
    toml.py      reading TOML, changing it, writing it
"""
from hpclcae.config.checks import check_range
from hpclcae.config.settings import (MOST_CLASSES, SCHEDULES, ClassifierConfig, Config, DataConfig,
                                     ParallelConfig, PreprocessConfig, StageConfig, TrainConfig,
                                     UpdateConfig)
from hpclcae.config.toml import dumps, flatten, load, load_supervised, loads

__all__ = ["MOST_CLASSES", "SCHEDULES", "ClassifierConfig", "Config", "DataConfig",
           "ParallelConfig", "PreprocessConfig", "StageConfig", "TrainConfig", "UpdateConfig",
           "check_range", "dumps", "flatten", "load", "load_supervised", "loads"]
