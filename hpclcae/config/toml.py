"""A configuration read from TOML, changed with ``key=value``, and written."""
import codecs
import contextlib
import dataclasses
import json
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

from hpclcae.config.checks import check
from hpclcae.config.settings import SECTIONS, Config
from hpclcae.utils.errors import InputError, one_line, shown
from hpclcae.utils.text import to_text

LONGEST_VALUE = 100  # characters of an argument, in a message


def load(path: str | Path, changes: typing.Sequence[str] = ()) -> Config:
    """Read a TOML file and apply ``key=value`` changes.

    Raises
    ------
    InputError
        The file is missing or no TOML; a key is unknown; a value has the wrong type or range. The
        message names the key, the value and what is allowed.
    """
    return loads(_read(path), changes, where=str(path))


def _read(path: str | Path) -> str:
    """The text of a configuration file."""
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"configuration {path} cannot be read: "
                         f"{getattr(error, 'strerror', None) or error}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise InputError(f"configuration {path} cannot be read: it is UTF-16, or no text at all; "
                         "save it as UTF-8")
    # Paths in it may have names that are not UTF-8; editors of Windows write a byte order mark.
    return to_text(content.removeprefix(codecs.BOM_UTF8))


def loads(text: str, changes: typing.Sequence[str] = (), where: str = "configuration") -> Config:
    """The same from a text (a checkpoint keeps the resolved text of its run)."""
    config = _build(Config, _tree(text, changes, where), where, "")
    check(config, where)
    return config


def load_supervised(path: str | Path, changes: typing.Sequence[str], network: Config,
                    weights: str) -> Config:
    """Read how a classifier is to be trained on the network of another configuration.

    Parameters
    ----------
    network : Config
        Its stages, preprocessing, size of images and dtype are taken.
    weights : str
        The checkpoint that it is of.

    Raises
    ------
    InputError
        As in `load`; or the file sets what comes from the checkpoint.
    """
    where = str(path)
    tree = _tree(_read(path), changes, where)
    fixed = {"data": ("size", "channels"), "train": ("weights", "dtype", "gradient")}
    given: list[str] = [name for name in ("stages", "preprocess") if name in tree]
    given += [f"{section}.{key}" for section, keys in fixed.items() for key in keys
              if isinstance(tree.get(section), dict) and key in tree[section]]
    if given:
        raise InputError(f"{where}: {given[0]} is that of the checkpoint {weights}: leave it out")
    if isinstance(classifier := tree.setdefault("classifier", {}), dict):
        classifier.setdefault("loss", "logistic")
    config = _build(Config, tree, where, "")
    if not config.is_supervised:
        raise InputError(f"{where}: classifier.loss = 'none': use 'logistic' or 'softmax'")
    config = dataclasses.replace(
        config, preprocess=network.preprocess,
        # nothing is trained greedily, and nothing is decoded: decoders would only take memory
        stages=tuple(dataclasses.replace(stage, steps=0, batch=0, rate=0.0, weights="tied")
                     for stage in network.stages),
        data=dataclasses.replace(config.data, size=network.data.size,
                                 channels=network.data.channels),
        train=dataclasses.replace(config.train, weights=weights, dtype=network.train.dtype))
    check(config, where)
    return config


def _tree(text: str, changes: typing.Sequence[str], where: str) -> dict[str, Any]:
    """A text of TOML with changes."""
    try:
        tree = _parsed(text)
    except ValueError as error:
        raise InputError(f"{where} is not valid TOML: {one_line(str(error))}") from error
    for change in changes:
        _set(tree, change)
    return tree


def dumps(config: Config) -> str:
    """The resolved configuration as TOML; ``loads(dumps(c)) == c``."""
    lines: list[str] = []
    for name in SECTIONS:
        lines += [f"[{name}]", *_toml_lines(getattr(config, name)), ""]
    for stage in config.stages:
        lines += ["[[stages]]", *_toml_lines(stage), ""]
    return "\n".join(lines)


def _toml_lines(section: Any) -> list[str]:
    def value(v: Any) -> str:
        if isinstance(v, bool):
            return str(v).lower()
        if isinstance(v, str):  # JSON escapes what TOML wants escaped, except for one character
            return json.dumps(v, ensure_ascii=False).replace("\x7f", "\\u007f")
        return repr(v)
    return [f"{f.name} = {value(getattr(section, f.name))}" for f in dataclasses.fields(section)]


def _parsed(text: str) -> dict[str, Any]:
    """A text of TOML.

    Raises
    ------
    ValueError
        It is none; an integer has thousands of digits; tables lie too deep in each other.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _set(tree: dict[str, Any], change: str) -> None:
    """Apply ``stages.0.maps=8`` to the parsed tree; the value is read as TOML, else as a string."""
    key, equals, text = change.partition("=")
    change = one_line(change, LONGEST_VALUE)
    if not equals:
        raise InputError(f"--set {change!r} has no '='; write for instance --set train.steps=500")
    value: Any = text
    with contextlib.suppress(ValueError):
        value = _parsed(f"value = {text}")["value"]
    node: Any = tree
    words = key.strip().split(".")
    for word, following in zip(words, words[1:] + [""]):
        index: Any = word
        if isinstance(node, list):
            if word not in map(str, range(len(node))):
                raise InputError(f"--set {change}: there is no {shown(word)} in a list of "
                                 f"{len(node)}")
            index = int(word)
        if not following:
            node[index] = value
            return
        node = node[index] if isinstance(node, list) else node.setdefault(index, {})
        if not isinstance(node, dict | list):
            raise InputError(f"--set {change}: {shown(word)} is a value, not a section")


def _build(cls: Any, tree: Any, where: str, prefix: str) -> Any:
    """Make dataclass `cls` from a parsed table, checking names and types."""
    if not isinstance(tree, dict):
        raise InputError(f"{where}: {prefix or 'top level'} must be a table, not {shown(tree)}")
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else key
        if key not in hints:
            raise InputError(f"{where}: unknown key {shown(name)}; allowed here: "
                             f"{', '.join(hints)}")
        values[key] = _convert(hints[key], value, where, name)
    return cls(**values)


def _convert(kind: Any, value: Any, where: str, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where, name)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        if not isinstance(value, list) or not value:
            raise InputError(f"{where}: {name} must be a list of at least one table ([[{name}]]), "
                             f"not {shown(value)}")
        return tuple(_convert(inner, v, where, f"{name}.{i}") for i, v in enumerate(value))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):  # or a word in place of it
        number, words = typing.get_args(kind)
        if isinstance(value, str) and value not in typing.get_args(words):
            raise InputError(f"{where}: {name} = {shown(value)}; allowed: a number, "
                             f"{', '.join(map(repr, typing.get_args(words)))}")
        return value if isinstance(value, str) else _convert(number, value, where, name)
    if typing.get_origin(kind) is Literal:
        allowed = typing.get_args(kind)
        if value not in allowed:
            raise InputError(f"{where}: {name} = {shown(value)}; allowed: "
                             f"{', '.join(map(repr, allowed))}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.copysign(math.inf, value > 0 or -1)
    if type(value) is not kind:
        quotes = f', in quotes: "{shown(value)}"' if kind is str else ""
        raise InputError(f"{where}: {name} = {shown(value)} is of type {type(value).__name__}; it "
                         f"must be of type {kind.__name__}{quotes}")
    return value


def flatten(config: Config) -> types.MappingProxyType[str, Any]:
    """Every setting by its dotted key, for comparing two configurations."""
    flat: dict[str, Any] = {}

    def walk(value: Any, prefix: str) -> None:
        if dataclasses.is_dataclass(value):
            for f in dataclasses.fields(value):
                walk(getattr(value, f.name), f"{prefix}.{f.name}" if prefix else f.name)
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                walk(item, f"{prefix}.{i}")
        else:
            flat[prefix] = value
    walk(config, "")
    return types.MappingProxyType(flat)
