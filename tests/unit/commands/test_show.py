"""The table of ``hpclcae show``."""
import argparse
import re

import pytest

from hpclcae import config as configuration
from hpclcae.commands import show
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN


def printed(capsys, *words):
    parser = argparse.ArgumentParser()
    show.configure(parser)
    assert show.run(parser.parse_args([str(word) for word in words])) == 0
    return capsys.readouterr().out


def test_the_paper_on_one_screen(capsys):
    text = printed(capsys, RUN / "paper.toml")
    for expected in ("1,144,863,072", "2,289,726,144 = 9.16 GB in float32", "200x200x3",
                     "125x125x8", "76", "13.22 GFLOP per image", "joint, momentum"):
        assert expected in text
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 130


def test_every_sublayer_has_its_row(capsys):
    text = printed(capsys, RUN / "desk.toml")
    assert [len(re.findall(word, text))
            for word in ("filter, untied", "L2 pooling", "contrast norm.")] == [3, 3, 0]
    shapes = [(c.filtered, c.pooled)
              for c in Network(Layout(configuration.load(RUN / "desk.toml"))).layout.geometry]
    for shape in (s for pair in shapes for s in pair):
        assert "x".join(map(str, shape)) in text


def test_memory_of_parameters_is_what_a_network_holds(capsys):
    config = configuration.load(RUN / "tiny.toml")
    held = Network(Layout(config)).parameters().vector.nbytes
    said = re.search(r"([\d.]+) (KB|MB) parameters in kernel tiles \+ ([\d.]+) (KB|MB) for rule",
                     printed(capsys, RUN / "tiny.toml"))
    for number, unit in (said.group(1, 2), said.group(3, 4)):  # momentum keeps one vector more
        assert float(number) * {"KB": 1e3, "MB": 1e6}[unit] == pytest.approx(held, rel=0.01)


def test_changes_and_the_resolved_settings(capsys):
    text = printed(capsys, RUN / "tiny.toml", "--settings", "--set", "stages.1.maps=7", "--set",
                   "train.dtype=float64")
    config = configuration.loads(text)
    assert config == configuration.load(RUN / "tiny.toml",
                                        ["stages.1.maps=7", "train.dtype=float64"])
    assert config.stages[1].maps == 7
    assert "in float64" in printed(capsys, RUN / "tiny.toml", "--set", "train.dtype=float64")


def test_what_does_not_fit_is_refused(capsys):
    with pytest.raises(InputError, match=r"stages\.0\.receptive_field = 18 does not fit"):
        printed(capsys, RUN / "paper.toml", "--set", "data.size=17")


def test_the_paper_s_22000_classes_are_planned_not_gathered(capsys):
    """2.75 billion weights, their memory, and what the blocks send each other."""
    words = ("--set", "classifier.loss=logistic", "--set", "classifier.classes=22000")
    text = printed(capsys, RUN / "paper.toml", *words)
    for expected in ("2,750,000,000 weights, 11.00 GB", "22,000 classes x 125,000 features",
                     "8.8 MB of scores", "22.00 GB a step", "5,039,748,144"):
        assert expected in text
    assert max(map(len, text.splitlines())) <= 200


def test_memory_of_a_classifier_is_what_a_network_holds(capsys):
    words = ["classifier.loss=softmax", "classifier.classes=9", "classifier.steps=5"]
    config = configuration.load(RUN / "tiny.toml", words)
    held = Network(Layout(config)).parameters().vector.nbytes
    text = printed(capsys, RUN / "tiny.toml", *(w for word in words for w in ("--set", word)))
    number, unit = re.search(r"([\d.]+) (KB|MB) parameters in kernel tiles", text).group(1, 2)
    assert float(number) * {"KB": 1e3, "MB": 1e6}[unit] == pytest.approx(held, rel=0.01)
