"""Configuration: what an experiment is, as frozen dataclasses read from TOML.

Each field's default is the paper's value where the paper states one; a comment names the unit or
the source. ``run/*.toml`` are named configurations; ``--set stages.0.maps=8`` changes one value.
"""
import codecs
import contextlib
import dataclasses
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpclcae.utils.errors import InputError, one_line, shown
from hpclcae.utils.expressions import Expression
from hpclcae.utils.text import to_text


@dataclass(frozen=True)
class DataConfig:
    """Which images the network sees."""
    train: str = "data/train.h5"  # HDF5 dataset of the training images (hpclcae data ...)
    test: str = "data/test.h5"    # labelled HDF5 dataset for the tests of single neurons
    size: int = 200               # side of the square image, pixels
    channels: int = 3             # 1 grey, 3 colour
    mirror: bool = True           # show half of the images mirrored left to right
    keep: float = 0.25            # pixels that were read stay in memory, if those of all images
    #                               take at most this part of what the rank has to spare; 0: never
    crop: int = 0                 # move each image by up to so many pixels along both sides; what
    #                               comes in repeats its border


@dataclass(frozen=True)
class PreprocessConfig:
    """Contrast normalisation and local whitening.

    Fitted on the training set, kept in the checkpoint.
    """
    contrast: bool = True            # subtract each image's mean, divide by its standard deviation
    #                                  + floor
    contrast_floor: float = 8.0      # added to the standard deviation, grey levels of 255
    whitening: int = 11              # side of the local ZCA kernel, pixels, odd; 0: no whitening
    whitening_epsilon: float = 1.0   # added to every eigenvalue, in units of the mean eigenvalue
    whitening_images: int = 2000     # training images whose patches the kernel is fitted on
    rescale: bool = True             # divide each whitened image by its standard deviation


@dataclass(frozen=True)
class StageConfig:
    """One stage: filtering, L2 pooling, local contrast normalisation (paper, section 3)."""
    receptive_field: int = 18        # side of the filter window, input positions
    stride: int = 1                  # between neighbouring filter windows, input positions
    maps: int = 8                    # filters at every position
    pooling: int = 5                 # side of the pooling window, positions
    pooling_stride: int = 1          # between neighbouring pooling windows, positions
    epsilon: float = 0.01            # inside the square root of pooling [not stated in the paper]
    lcn: int = 5                     # side of the window of contrast normalisation; 0: none
    lcn_sigma: float = 1.0           # of its Gaussian, positions [not stated in the paper]
    lcn_floor: float = 0.01          # smallest divisor, c in the paper
    lcn_border: Literal["clip", "valid", "centre", "same"] = "clip"
    #                                  what is done where a window ends: layers/contrast_norm.py
    # how the pooled responses are conditioned for the stage above (model/conditioner.py)
    log: bool = False                # logarithm of every pooled response
    standardise: bool = False        # subtract each unit's mean over training images, divide by its
    #                                  standard deviation; then follows lcn, if any
    contrast: bool = False           # subtract each image's own mean, divide by its standard
    #                                  deviation: of the whole map, or of each window
    whiten: int = 0                  # directions of the map, or of each window, that are kept, all
    #                                  with the same variance; 0: no whitening
    whiten_by: Literal["variance", "pairs"] = "variance"  # those of largest variance, or those that
    #                                  are most alike in the two frames of a pair
    window: int = 0                  # side of windows that are conditioned each by itself and give
    #                                  `whiten` numbers each, positions; 0: the map as a whole
    window_stride: int = 1           # between neighbouring windows, positions
    weights: Literal["untied", "tied"] = "untied"       # decoder of its own, or the encoder
    #                                                     transposed
    encoder_norm: Literal["free", "unit"] = "free"      # what holds the scale: filters normalised
    #                                                     in the
    decoder_norm: Literal["free", "unit"] = "unit"      # forward pass (layers/unit_norm.py)
    sparsity: float = 0.1            # lambda
    sparsity_unit: Literal["absolute", "sigma"] = "absolute"  # sigma: times the standard deviation
    #                                  of one direction of a whitened input, sqrt(inputs / rank)
    weight: float = 1.0              # of this stage's term in the objective
    steps: int = 0                   # greedy: minibatches of this stage; 0: an equal share of what
    #                                  the others leave of train.steps
    batch: int = 0                   # greedy: images a minibatch of this stage; 0: train.batch
    rate: float = 0.0                # greedy: learning rate of this stage; 0: update.rate
    tile: int = 0                    # side of a kernel tile, positions; 0: chosen by a rule


MOST_STAGES = 100
MOST_CLASSES = 10 ** 7
LONGEST_VALUE = 100  # characters of an argument, in a message
SCHEDULES = ("constant", "halfway")  # named ones; any other is an expression (model/schedule.py)


@dataclass(frozen=True)
class UpdateConfig:
    """How a gradient changes the parameters."""
    rule: Literal["sgd", "momentum", "adagrad", "adam"] = "momentum"
    rate: float = 0.1                # learning rate; sgd, momentum: in units of 1/fan-in, as a
    #                                  filter's curvature grows with its inputs; adagrad, adam: in
    #                                  units of a typical weight, 1/sqrt(fan-in)
    momentum: float = 0.9            # momentum; adam: first moment
    second_moment: float = 0.99      # adam
    schedule: str = "halfway"        # constant; halfway: falls linearly to 0 over the second half;
    # or an expression of step (from 0 to steps - 1), steps and epoch that rate is multiplied with,
    # for instance "0.5 * (1 + cos(pi * step / steps))"
    clip: float = 0.0                # largest norm of the gradient of one filter; 0: none
    staleness_scaled: bool = False   # divide the rate by 1 + the updates that a gradient has missed
    #                                  (servers only)
    delay_compensation: float = 0.0  # lambda of DC-ASGD (Zheng et al. 2017); 0: none (servers only)


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""
    steps: int = 1000                # minibatches, of all stages together
    batch: int = 100                 # images a minibatch
    seed: int = 0                    # of initial weights and of the minibatch stream
    weights: str = ""                # run or checkpoint to begin with: its weights, preprocessing
    #                                  and conditioners; "": random weights
    dtype: Literal["float32", "float64"] = "float32"
    gradient: Literal["joint", "stopped", "greedy"] = "joint"  # see model/network.py
    checkpoint_every: int = 200      # steps between checkpoints; one is always written at the end
    keep: int = 2                    # newest checkpoints to keep (never fewer than 2: one may turn
    #                                  out damaged)
    keep_every: int = 0              # also keep checkpoints of steps that this divides; 0: none
    log_every: int = 10              # steps between lines of metrics
    condition_images: int = 20000    # training images that conditioners are fitted on, at most
    condition_every: int = 0         # joint, stopped: steps between two fits of the conditioners;
    #                                  0: fitted once, at the start
    cache: Literal["none", "auto", "memory", "disk"] = "none"  # greedy, and a classifier by itself:
    #                                  keep what finished stages answer to each training image
    #                                  (float16), in memory or in the run folder; auto: in memory if
    #                                  it fits, else computed anew each time


@dataclass(frozen=True)
class ClassifierConfig:
    """Categories told apart on the top stage, and how it is trained (hpclcae finetune).

    First the classifier alone learns, on features that stay as they are; then the whole network.
    """
    loss: Literal["none", "logistic", "softmax"] = "none"  # none: there is no classifier; logistic:
    #                                  one against all others (the paper's); see model/classifier.py
    classes: int = 0                 # categories; 0: those of data.train
    start: Literal["pretrained", "random"] = "pretrained"  # weights of the stages: those of
    #                                  train.weights, or random ones (the control)
    standardise: bool = True         # subtract each feature's mean over training images, divide by
    #                                  its standard deviation
    balance: bool = False            # weigh images by 1 / how frequent their category is
    l2: float = 1e-4                 # penalty: l2 / 2 times the sum of all squared weights
    steps: int = 500                 # minibatches of the classifier alone; those that are left of
    #                                  train.steps are of the whole network
    batch: int = 0                   # images a minibatch of the classifier alone; 0: train.batch
    rate: float = 0.0                # learning rate of the classifier alone; 0: update.rate
    per_class: int = 0               # training images of each category, chosen by train.seed; 0:
    #                                  all
    validation: float = 0.1          # share of the training images that is not trained on, but
    #                                  looked at with every train.checkpoint_every: the best
    #                                  checkpoint is kept
    patience: int = 0                # looks of the last phase without a better one after which
    #                                  training ends; 0: it never ends early
    parts: int = 1                   # cut the categories into so many parts, dealt to the columns
    #                                  of a grid, where one rank cannot hold all for its features


@dataclass(frozen=True)
class ParallelConfig:
    """How the work is spread over ranks (mpiexec, srun); it changes who computes, not what."""
    grid: str = "auto"               # blocks that share one network, ROWSxCOLUMNS; auto: see
    #                                  partition/cost.py
    servers: int = 0                 # ranks that hold the parameters; 0: every block updates its
    #                                  own
    replicas: int = 1                # copies of the network, each trains on its own portion of the
    #                                  images
    placement: Literal["beside", "apart"] = "beside"  # servers spread over the workers' nodes, or
    #                                                   on nodes of their own
    transport: Literal["auto", "rma", "messages"] = "auto"  # gradients written into the server's
    #                                  memory (MPI's remote memory access), or messages; auto: the
    #                                  first, if it works here
    window: Literal["allocate", "create"] = "allocate"  # that memory: MPI's, which ranks of a node
    #                                                     share, or NumPy's
    slots: int = 8                   # rma: gradients of chunks that may lie at a server, of each
    #                                  worker
    # who waits for whom
    consistency: Literal["asynchronous", "bounded", "synchronous"] = "asynchronous"
    staleness: int = 4               # bounded: pushes that a replica may be ahead of the slowest
    #                                  one
    backup: int = 0                  # synchronous: replicas that a push does not wait for; their
    #                                  gradients are dropped
    fetch_every: int = 1             # steps between fetches of the parameters
    push_every: int = 1              # steps whose gradients are summed before a push
    overlap: bool = True             # fetch while computing, so with parameters one fetch older;
    #                                  not if synchronous
    elastic: float = 0.0             # elastic averaging (Zhang et al. 2015): pull towards the
    #                                  servers' average; 0: none
    warm_start: int = 0              # steps that the first replica makes before the others join
    log_events: bool = False         # servers write down who applied what against which version
    #                                  (hpclcae replay)

    @property
    def lockstep(self) -> bool:
        """Whether all replicas make the same steps, and so the same bits in every run."""
        return self.servers > 0 and self.consistency == "synchronous" and not self.backup


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""
    data: DataConfig = field(default_factory=DataConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    stages: tuple[StageConfig, ...] = (StageConfig(), StageConfig(), StageConfig())
    update: UpdateConfig = field(default_factory=UpdateConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    @property
    def is_supervised(self) -> bool:
        """Whether there is a classifier on the top stage."""
        return self.classifier.loss != "none"


#: The sections that are one table each.
SECTIONS = "data", "preprocess", "update", "train", "classifier", "parallel"


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
    _check(config, where)
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
        stages=tuple(dataclasses.replace(stage, steps=0, batch=0, rate=0.0)  # of greedy training
                     for stage in network.stages),
        data=dataclasses.replace(config.data, size=network.data.size,
                                 channels=network.data.channels),
        train=dataclasses.replace(config.train, weights=weights, dtype=network.train.dtype))
    _check(config, where)
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


#: Largest values: pixels along a side; maps of a stage; images of a minibatch; what is
#: counted (images, steps); ranks;
#: real numbers, so that their squares still fit into float32 or nearly so.
_SIDE, _MAPS, _BATCH, _COUNT, _RANKS, _REAL = 16_384, 65_536, 10 ** 9, 10 ** 12, 10 ** 5, 1e30
_ABOVE_0 = 1e-30  # smallest of those that must not be 0
#: key -> (smallest allowed value, largest); one rule for every stage
_RANGES: dict[str, tuple[float, float]] = {
    "data.size": (1, _SIDE), "data.keep": (0, 1), "data.crop": (0, _SIDE),
    "preprocess.contrast_floor": (_ABOVE_0, _REAL), "preprocess.whitening": (0, _SIDE),
    "preprocess.whitening_epsilon": (0, _REAL), "preprocess.whitening_images": (1, _COUNT),
    "stages.receptive_field": (1, _SIDE), "stages.stride": (1, _SIDE), "stages.maps": (1, _MAPS),
    "stages.pooling": (1, _SIDE), "stages.pooling_stride": (1, _SIDE),
    "stages.epsilon": (_ABOVE_0, _REAL), "stages.lcn": (0, _SIDE),
    "stages.lcn_sigma": (_ABOVE_0, _REAL), "stages.lcn_floor": (_ABOVE_0, _REAL),
    "stages.sparsity": (0, _REAL), "stages.weight": (0, _REAL), "stages.tile": (0, _SIDE),
    "stages.whiten": (0, _COUNT), "stages.window": (0, _SIDE), "stages.window_stride": (1, _SIDE),
    "stages.steps": (0, _COUNT), "stages.batch": (0, _BATCH), "stages.rate": (0, _REAL),
    "update.rate": (_ABOVE_0, _REAL), "update.momentum": (0, _REAL),
    "update.second_moment": (0, _REAL), "update.clip": (0, _REAL),
    "update.delay_compensation": (0, _REAL),
    "train.steps": (1, _COUNT), "train.batch": (1, _BATCH), "train.seed": (0, 2 ** 63 - 1),
    "train.checkpoint_every": (1, _COUNT), "train.keep": (1, _COUNT),
    "train.keep_every": (0, _COUNT), "train.log_every": (1, _COUNT),
    "train.condition_images": (2, _COUNT), "train.condition_every": (0, _COUNT),
    "classifier.classes": (0, MOST_CLASSES), "classifier.l2": (0, _REAL),
    "classifier.steps": (0, _COUNT), "classifier.batch": (0, _BATCH),
    "classifier.rate": (0, _REAL), "classifier.per_class": (0, _COUNT),
    "classifier.validation": (0, 0.5), "classifier.patience": (0, _COUNT),
    "classifier.parts": (1, MOST_CLASSES),
    "parallel.servers": (0, _RANKS), "parallel.replicas": (1, _RANKS),
    "parallel.slots": (1, _RANKS),
    "parallel.staleness": (0, _COUNT), "parallel.backup": (0, _RANKS),
    "parallel.fetch_every": (1, _COUNT), "parallel.push_every": (1, _COUNT),
    "parallel.elastic": (0, _REAL), "parallel.warm_start": (0, _COUNT)}


def check_range(name: str, value: float, low: float, high: float, where: str = "") -> None:
    """Refuse a number out of its range.

    Parameters
    ----------
    low, high : int or float
        Both are allowed; a `low` of `_ABOVE_0` says that 0 is not.
    where : str, optional
        What the message begins with.

    Raises
    ------
    InputError
        Names the number, its value and the range.
    """
    if low <= value <= high:
        return
    if low == _ABOVE_0 and not value > 0:
        bound = "greater than 0"
    elif value == math.inf:
        bound = "finite"
    elif value > high:
        bound = f"at most {high:,}" if isinstance(high, int) else f"at most {high:g}"
    else:
        bound = f"at least {low:g}"
    raise InputError(f"{where}{name} = {shown(value)}; it must be {bound}")


def _check(config: Config, where: str) -> None:
    """Refuse values that no run could use; what depends on geometry is checked in geometry.py."""
    sections = [(n, getattr(config, n), n) for n in SECTIONS]
    sections += [("stages", stage, f"stages.{i}") for i, stage in enumerate(config.stages)]
    for rule, section, name in sections:
        for f in dataclasses.fields(section):
            if f"{rule}.{f.name}" in _RANGES:
                check_range(f"{name}.{f.name}", getattr(section, f.name),
                            *_RANGES[f"{rule}.{f.name}"], where=f"{where}: ")
    if len(config.stages) > MOST_STAGES:
        raise InputError(f"{where}: {len(config.stages)} stages; use at most {MOST_STAGES}")
    if config.data.channels not in (1, 3):
        raise InputError(f"{where}: data.channels = {shown(config.data.channels)}; allowed: 1 "
                         "(grey), 3 (colour)")
    for name, value in (("preprocess.whitening", config.preprocess.whitening),
                        *((f"stages.{i}.lcn", s.lcn) for i, s in enumerate(config.stages))):
        if value and value % 2 == 0:
            raise InputError(f"{where}: {name} = {value}; it must be odd (a window has a centre), "
                             "or 0 for none")
    for name in ("momentum", "second_moment"):
        if not getattr(config.update, name) < 1:
            raise InputError(f"{where}: update.{name} = {getattr(config.update, name)}; it must be "
                             "below 1")
    _check_schedule(config.update.schedule, where)
    _check_stages(config, where)
    if config.is_supervised:
        _check_classifier(config, where)
    _check_parallel(config, where)


def _check_classifier(config: Config, where: str) -> None:
    """Refuse what a classifier cannot be trained with."""
    c, train = config.classifier, config.train

    def refuse(key: str, why: str) -> InputError:
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        return InputError(f"{where}: {key} = {shown(value)}: {why}")
    if train.gradient != "joint":
        raise refuse("train.gradient", "the stages below a classifier learn together: set it to "
                     "'joint'")
    if train.condition_every:
        raise refuse("train.condition_every", "what stands between the stages stays as it is while "
                     "a classifier is trained: set it to 0")
    if c.classes == 1:
        raise refuse("classifier.classes", "there is nothing to tell apart: at least 2")
    if c.steps > train.steps:
        raise refuse("classifier.steps", f"that is more than train.steps = {train.steps}, which "
                     "counts them too")
    if c.parts > max(1, c.classes) and c.classes:
        raise refuse("classifier.parts", f"there are {c.classes} categories: at most as many parts")
    if c.patience and not c.validation:
        raise refuse("classifier.patience", "without validation images nobody can tell: set "
                     "classifier.validation to a share of the training images, or it to 0")


def _check_stages(config: Config, where: str) -> None:
    """Refuse conditioners and steps of stages that cannot work together."""
    greedy = config.train.gradient == "greedy"

    def refuse(index: int, key: str, why: str) -> InputError:
        return InputError(f"{where}: stages.{index}.{key} = "
                          f"{getattr(config.stages[index], key)}: {why}")
    for index, stage in enumerate(config.stages):
        if stage.window and not stage.whiten:
            raise refuse(index, "window", "a window gives its whitened directions: set "
                         f"stages.{index}.whiten to how many, or window = 0")
        if stage.whiten_by == "pairs" and not stage.window:
            raise refuse(index, "whiten_by", "directions by pairs need windows: set "
                         f"stages.{index}.window (the side of the map for one window)")
        for key in ("steps", "batch", "rate"):
            if getattr(stage, key) and not greedy:
                raise refuse(index, key, "stages that learn together make the same steps: set "
                             "train.gradient = 'greedy', or leave it 0")
    last = len(config.stages) - 1
    for key in ("log", "standardise", "contrast", "whiten"):
        if getattr(config.stages[last], key):
            raise refuse(last, key, "no stage above the last one needs a conditioner: leave it off")
    if config.train.condition_every and greedy:
        raise InputError(f"{where}: train.condition_every = {config.train.condition_every}: in "
                         "greedy training a conditioner is fitted once, when its stage has been "
                         "trained; set it to 0")
    if config.train.condition_every and config.parallel.replicas > 1 \
            and not config.parallel.lockstep:
        raise InputError(f"{where}: train.condition_every = {config.train.condition_every}: "
                         "replicas that do not make the same steps would fit different numbers; "
                         "set parallel.consistency = 'synchronous' (no backup), or leave it 0")
    if config.train.cache != "none" and not (greedy or config.is_supervised):
        raise InputError(f"{where}: train.cache = {config.train.cache!r}: only greedy training has "
                         "finished stages whose responses can be kept; set it to 'none'")
    given = sum(stage.steps for stage in config.stages)
    is_open = any(not stage.steps for stage in config.stages)
    if greedy and given and (given > config.train.steps
                             or not is_open and given != config.train.steps):
        raise InputError(f"{where}: train.steps = {config.train.steps}, but stages.*.steps add up "
                         f"to {given}: make them the same, or set one stage's steps to 0 (the "
                         "rest)")


def _check_schedule(schedule: str, where: str) -> None:
    """Refuse what is neither the name of a schedule nor arithmetic."""
    if schedule in SCHEDULES:
        return
    try:
        Expression(schedule, "update.schedule").check(("step", "steps", "epoch"))
    except InputError as error:
        named = ", ".join(map(repr, SCHEDULES))
        raise InputError(f"{where}: {error}; allowed: {named}, or an expression of step, steps and "
                         "epoch") from error


def _check_parallel(config: Config, where: str) -> None:
    """Refuse combinations that cannot work."""
    p, u = config.parallel, config.update

    def refuse(key: str, why: str) -> InputError:
        section, name = key.split(".")
        return InputError(f"{where}: {key} = {getattr(getattr(config, section), name)}: {why}")
    if p.replicas > 1 and not p.servers:
        raise refuse("parallel.replicas",
                     "replicas meet at parameter servers; set parallel.servers = 1 or more")
    if p.backup >= p.replicas:
        raise refuse("parallel.backup", f"it must be below parallel.replicas = {p.replicas}")
    if p.elastic >= 1:
        raise refuse("parallel.elastic",
                     "it must be below 1 (the paper's beta / replicas; try 0.5 / replicas)")
    if p.elastic and (p.consistency != "asynchronous" or u.delay_compensation
                      or u.staleness_scaled):
        raise refuse("parallel.elastic",
                     "replicas exchange parameters, not gradients: use parallel.consistency = "
                     "'asynchronous', no update.delay_compensation and no update.staleness_scaled")
    if (p.elastic or p.consistency == "synchronous") and p.fetch_every != p.push_every:
        raise refuse("parallel.push_every", "synchronous training and elastic averaging fetch and "
                     f"push together: parallel.fetch_every = {p.fetch_every} must be the same")
    if p.warm_start and p.consistency == "synchronous":
        raise refuse("parallel.warm_start",
                     "synchronous replicas start together, no gradient is stale: set it to 0")
    if p.backup and p.consistency != "synchronous":
        raise refuse("parallel.backup",
                     "only parallel.consistency = 'synchronous' has backup replicas")


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
