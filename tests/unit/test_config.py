"""Configurations: what is refused and how, and that nothing is lost between text and dataclass."""
import dataclasses
import math
import os
import typing

import pytest
from hypothesis import given, settings, strategies as st

from hpclcae import config as configuration
from hpclcae.config import checks
from hpclcae.config import (ClassifierConfig, Config, DataConfig, ParallelConfig, PreprocessConfig,
                            StageConfig, TrainConfig, UpdateConfig)
from hpclcae.geometry import network_geometry
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replace_text
from tests.support.processes import RUN

SECTIONS = {"data": DataConfig, "preprocess": PreprocessConfig, "update": UpdateConfig,
            "train": TrainConfig, "classifier": ClassifierConfig,
            "parallel": ParallelConfig, "stages.0": StageConfig}
FIELDS = [(section, name, hint) for section, cls in SECTIONS.items()
          for name, hint in typing.get_type_hints(cls).items()]
STAGE = "[[stages]]\n"


def refused(text="", *changes):
    """The one line that refuses a configuration."""
    with pytest.raises(InputError) as caught:
        configuration.loads(text, changes, where="some.toml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def ids(fields):
    return [".".join(field[:2]) for field in fields]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unknown_key_is_named_with_the_keys_that_exist(section):
    message = refused(STAGE, f"{section}.speling=3")
    assert f"unknown key '{section}.speling'" in message
    for field in dataclasses.fields(SECTIONS[section]):
        assert field.name in message


def test_an_unknown_section_is_named():
    assert "unknown key 'trian'" in refused("[trian]\nsteps = 3")
    assert "update" in refused("[trian]\nsteps = 3")


@pytest.mark.parametrize("section, name, hint", FIELDS, ids=ids(FIELDS))
def test_a_value_of_the_wrong_type_is_refused_for_every_key(section, name, hint):
    wrong = "'three'" if hint is not str else "3"
    message = refused(STAGE, f"{section}.{name}={wrong}")
    assert message.startswith(f"some.toml: {section}.{name} = {wrong}")
    if typing.get_origin(hint) is typing.Union:  # a number, or a word in place of it
        hint = typing.get_args(hint)[1]
    if typing.get_origin(hint) is typing.Literal:
        assert all(repr(allowed) in message for allowed in typing.get_args(hint))
    else:
        quotes = ', in quotes: "3"' if hint is str else ""
        assert message.endswith(f"it must be of type {hint.__name__}{quotes}")


INTEGERS = [field for field in FIELDS if field[2] is int]


@pytest.mark.parametrize("section, name, hint", INTEGERS, ids=ids(INTEGERS))
@pytest.mark.parametrize("wrong", ["true", "3.0"])
def test_neither_a_bool_nor_a_float_is_an_integer(section, name, hint, wrong):
    assert "it must be of type int" in refused(STAGE, f"{section}.{name}={wrong}")


NUMBERS = [field for field in FIELDS if field[2] in (int, float)]


@pytest.mark.parametrize("section, name, hint", NUMBERS, ids=ids(NUMBERS))
def test_a_number_below_its_range_is_refused_for_every_key(section, name, hint):
    message = refused(STAGE, f"{section}.{name}=-1")
    assert message.startswith(f"some.toml: {section}.{name} = -1")
    assert any(words in message for words in ("must be at least", "must be greater than",
                                              "allowed:"))


@pytest.mark.parametrize("section, name, hint", NUMBERS, ids=ids(NUMBERS))
@pytest.mark.parametrize("digits", [60, 400, 5000])
def test_a_number_above_its_range_is_refused_for_every_key(section, name, hint, digits):
    """Also those that neither a float nor Python can take, in a file and as --set."""
    message = refused(STAGE, f"{section}.{name}={'9' * digits}")
    assert message.startswith(f"some.toml: {section}.{name} = ") and len(message) < 300
    head = STAGE if section == "stages.0" else f"[{section}]\n"
    in_file = refused(f"{head}{name} = {'9' * digits}\n")
    assert in_file.startswith("some.toml") and len(in_file) < 300
    if digits == 60:
        assert any(words in message for words in ("must be at most", "allowed:"))


@pytest.mark.parametrize("change", ["stages." + "9" * 5000 + ".maps=3", "9" * 5000 + "=3",
                                    "data.size=" + "[" * 5000,
                                    "data.size=0x" + "f" * 9000, "data=" + "9" * 5000])
def test_arguments_of_thousands_of_digits_are_one_short_line(change):
    assert len(refused(STAGE, change)) < 300


@pytest.mark.parametrize("section, name, hint", NUMBERS, ids=ids(NUMBERS))
def test_every_number_has_a_range(section, name, hint):
    known = checks.RANGES.keys() | {"data.channels"}
    assert f"{section.partition('.')[0]}.{name}" in known


def test_a_text_that_is_nested_too_deeply_is_refused():
    assert "nested too deeply" in refused("x = " + "[" * 5000 + "]" * 5000)


FLOATS = [field for field in FIELDS if field[2] is float]


@pytest.mark.parametrize("section, name, hint", FLOATS, ids=ids(FLOATS))
@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
def test_no_float_may_be_nan_or_infinite(section, name, hint, wrong):
    message = refused(STAGE, f"{section}.{name}={wrong}")
    assert message.startswith(f"some.toml: {section}.{name} = {wrong}; it must be ")


@pytest.mark.parametrize("change, reason", [
    ("data.channels=2", "data.channels = 2; allowed: 1 (grey), 3 (colour)"),
    ("preprocess.whitening=4", "preprocess.whitening = 4; it must be odd"),
    ("stages.0.lcn=6", "stages.0.lcn = 6; it must be odd"),
    ("update.momentum=1", "update.momentum = 1.0; it must be below 1"),
    ("update.second_moment=1.5", "update.second_moment = 1.5; it must be below 1"),
    ("update.rate=0", "update.rate = 0.0; it must be greater than 0"),
    ("update.rate=1e-300", "update.rate = 1e-300; it must be at least 1e-30"),
    ("data.size=16385", "data.size = 16385; it must be at most 16,384"),
    ("update.rate=1e31", "update.rate = 1e+31; it must be at most 1e+30"),
    ("stages.0.epsilon=0", "stages.0.epsilon = 0.0; it must be greater than 0"),
    ("train.steps=0", "train.steps = 0; it must be at least 1"),
    ("stages.0.tile=-1", "stages.0.tile = -1; it must be at least 0"),
])
def test_limits(change, reason):
    assert reason in refused(STAGE, change)


SERVED = "[parallel]\nservers = 1\nreplicas = 3\n"


@pytest.mark.parametrize("changes, reason", [
    ({"servers": 0}, "replicas = 3: replicas meet at parameter servers"),
    ({"consistency": "synchronous", "backup": 3},
     "backup = 3: it must be below parallel.replicas = 3"),
    ({"backup": 1}, "backup = 1: only parallel.consistency = 'synchronous'"),
    ({"elastic": 1}, "elastic = 1.0: it must be below 1"),
    ({"elastic": 0.1, "consistency": "bounded"}, "elastic = 0.1: replicas exchange parameters"),
    ({"elastic": 0.1, "push_every": 2},
     "push_every = 2: synchronous training, elastic averaging"),
    ({"consistency": "synchronous", "fetch_every": 2},
     "push_every = 1: synchronous training, elastic"),
    ({"consistency": "synchronous", "warm_start": 5},
     "warm_start = 5: synchronous replicas start together"),
    ({"slots": 0}, "slots = 0; it must be at least 1"),])
def test_combinations_that_cannot_work(changes, reason):
    message = refused(SERVED + STAGE,
                      *(f"parallel.{key}={value}" for key, value in changes.items()))
    assert message.startswith(f"some.toml: parallel.{reason}")


@pytest.mark.parametrize("consistency, backup, lockstep",
                         [("synchronous", 0, True), ("synchronous", 1, False),
                          ("asynchronous", 0, False), ("bounded", 0, False)])
def test_which_replicas_make_the_same_steps(consistency, backup, lockstep):
    config = configuration.loads(SERVED + STAGE, [f"parallel.consistency={consistency}",
                                                  f"parallel.backup={backup}"])
    assert config.parallel.lockstep == lockstep


@pytest.mark.parametrize("text, reason", [
    ("size = ", "not valid TOML"),
    ("stages = []", "stages must be a list of at least one table"),
    ("stages = 3", "stages must be a list of at least one table"),
    ("stages = [3]", "stages.0 must be a table, not 3"),
    ("data = 3", "data must be a table, not 3"),
    ("[stages]\nmaps = 3", "stages must be a list of at least one table"),
])
def test_a_text_of_the_wrong_shape_is_refused(text, reason):
    assert reason in refused(text)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.toml", binary, tmp_path):
        with pytest.raises(InputError, match=f"^configuration {path} cannot be read: .*$"):
            configuration.load(path)


@pytest.mark.parametrize("change", [
    lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n"),
    lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n")])
def test_files_of_windows_editors_are_read(tmp_path, change):
    plain = (RUN / "tiny.toml").read_bytes()
    (tmp_path / "a.toml").write_bytes(change(plain))
    assert configuration.load(tmp_path / "a.toml") == configuration.load(RUN / "tiny.toml")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_named(tmp_path, encoding):
    (tmp_path / "a.toml").write_text((RUN / "tiny.toml").read_text(), encoding=encoding)
    with pytest.raises(InputError, match="it is UTF-16.* save it as UTF-8"):
        configuration.load(tmp_path / "a.toml")


def test_names_that_are_not_utf8_survive(tmp_path):
    odd = os.fsdecode(b"b\xe9.h5")
    config = configuration.load(RUN / "tiny.toml", [f"data.train={odd}"])
    replace_text(tmp_path / "a.toml", configuration.dumps(config))
    assert b'train = "b\xe9.h5"' in (tmp_path / "a.toml").read_bytes()
    assert configuration.load(tmp_path / "a.toml") == config


# ---- --set ---------------------------------------------------------------------------------------


def test_set_changes_values_of_every_type_in_place_and_creates_what_the_file_leaves_out():
    config = configuration.loads("[data]\nsize = 24\n" + STAGE + STAGE, [
        "data.channels = 1", "data.train=some folder/a=b.h5", "stages.1.maps=3",
        "stages.1.sparsity=1", "update.rule='adam'", "train.gradient=greedy", "data.mirror=false"])
    assert config == Config(
        data=DataConfig(train="some folder/a=b.h5", size=24, channels=1, mirror=False),
        stages=(StageConfig(), StageConfig(maps=3, sparsity=1.0)),
        update=UpdateConfig(rule="adam"), train=TrainConfig(gradient="greedy"))


def test_the_last_of_two_changes_holds():
    assert configuration.loads("", ["train.steps=5", "train.steps=6"]).train.steps == 6


def test_set_can_replace_the_list_of_stages():
    stages = configuration.loads(STAGE, ["stages=[{maps=1}, {maps=2}]"]).stages
    assert stages == (StageConfig(maps=1), StageConfig(maps=2))


@pytest.mark.parametrize("change, reason", [
    ("train.steps", "has no '='"),
    ("stages.1.maps=3", "there is no '1' in a list of 1"),
    ("stages.-1.maps=3", "there is no '-1' in a list of 1"),
    ("stages.first.maps=3", "there is no 'first' in a list of 1"),
    ("stages.\N{SUPERSCRIPT TWO}.maps=3", "there is no '\N{SUPERSCRIPT TWO}' in a list of 1"),
    ("data.size.rows=3", "'size' is a value, not a section"),
    ("train=3", "train must be a table, not 3"),
    ("=3", "unknown key ''"),
    ("train.steps=2020-01-01", "is of type date; it must be of type int"),
])
def test_a_change_that_makes_no_sense_is_refused(change, reason):
    assert reason in refused("[data]\nsize = 24\n" + STAGE, change)


# ---- round trips ---------------------------------------------------------------------------------


def values(section, name, hint):
    """Values of one key that are allowed."""
    if typing.get_origin(hint) is typing.Union:
        return st.one_of([values(section, name, each) for each in typing.get_args(hint)])
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if hint is bool:
        return st.booleans()
    if (section, name) == ("update", "schedule"):
        return st.sampled_from(["constant", "halfway", "0.5 ** epoch", "1 - step / steps"])
    if hint is str:
        return st.text(st.characters(codec="utf-8"))
    if (section, name) == ("data", "channels"):
        return st.sampled_from([1, 3])
    if hint is int:
        return st.integers(0, 8_000).map(lambda n: 2 * n + 1)
    upper = 1.0 if name in ("momentum", "second_moment") else 1e30
    return st.floats(1e-30, upper, exclude_max=True)


def sections(section):
    cls = SECTIONS[section]
    return st.builds(cls, **{name: values(section, name, hint)
                             for name, hint in typing.get_type_hints(cls).items()})


CONFIGS = st.builds(Config, *map(sections, ("data", "preprocess")),
                    st.lists(sections("stages.0"), min_size=1, max_size=3).map(tuple),
                    *map(sections, ("update", "train")))


def consistent(config):
    """The nearest configuration whose stages fit together."""
    greedy = config.train.gradient == "greedy"
    stages = [dataclasses.replace(
        stage, steps=0, **({} if greedy else {"batch": 0, "rate": 0.0}),
        whiten_by=stage.whiten_by if stage.window else "variance")
              for stage in config.stages]
    stages[-1] = dataclasses.replace(stages[-1], log=False, standardise=False, contrast=False,
                                     whiten=0, window=0, whiten_by="variance")
    train = dataclasses.replace(
        config.train, condition_images=config.train.condition_images + 1,
        **({"condition_every": 0} if greedy else {"cache": "none"}),
        **({"keep_every": 0} if config.train.checkpoint_every == "auto" else {}))
    data = dataclasses.replace(config.data, keep=config.data.keep % 1)
    return dataclasses.replace(config, data=data, stages=tuple(stages), train=train)


@settings(max_examples=60, deadline=None)
@given(CONFIGS.map(consistent))
def test_a_configuration_survives_its_text(config):
    assert configuration.loads(configuration.dumps(config)) == config


@pytest.mark.parametrize("text", ['"quoted"', "back\\slash", "two\nlines", "tab\tdelete\x7f",
                                  "naïve 😀", "'"])
def test_strings_that_need_care_survive(text):
    config = Config(data=DataConfig(train=text))
    assert configuration.loads(configuration.dumps(config)) == config


def test_integers_are_taken_for_floats_and_stay_so():
    config = configuration.loads("[update]\nrate = 1")
    assert type(config.update.rate) is float
    assert "rate = 1.0" in configuration.dumps(config)


def test_flatten_names_every_setting_once():
    flat = configuration.flatten(Config(stages=(StageConfig(), StageConfig(maps=3))))
    assert flat["stages.1.maps"] == 3 and flat["data.size"] == 200
    assert len(flat) == len(FIELDS) + len(dataclasses.fields(StageConfig))
    with pytest.raises(TypeError):
        flat["data.size"] = 3


# ---- what is shipped -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RUN.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_fits(path):
    config = configuration.load(path)
    assert len(network_geometry(config)) == len(config.stages)


def test_the_shipped_configurations_are_there():
    assert {"tiny", "desk", "plain", "faces", "paper"} <= {path.stem for path in RUN.glob("*.toml")}


def test_the_defaults_are_the_paper():
    stages = configuration.load(RUN / "paper.toml").stages
    assert all((s.receptive_field, s.maps, s.pooling, s.lcn) == (18, 8, 5, 5)
               for s in (*stages, StageConfig()))
    assert all(s.sparsity == 0.1 and math.isclose(s.lcn_floor, 0.01) for s in stages)
