"""Values and combinations of settings that no run could use: one line each.

What depends on the shapes of a network is checked in geometry.py.
"""
import dataclasses
import math

from hpclcae.config.settings import MOST_CLASSES, MOST_STAGES, SCHEDULES, SECTIONS, Config
from hpclcae.utils.errors import InputError, shown
from hpclcae.utils.expressions import Expression

#: Largest values: pixels along a side; maps of a stage; images of a minibatch; what is
#: counted (images, steps); ranks;
#: real numbers, so that their squares still fit into float32 or nearly so.
_SIDE, _MAPS, _BATCH, _COUNT, _RANKS, _REAL = 16_384, 65_536, 10 ** 9, 10 ** 12, 10 ** 5, 1e30
_ABOVE_0 = 1e-30  # smallest of those that must not be 0
#: key -> (smallest allowed value, largest); one rule for every stage
RANGES: dict[str, tuple[float, float]] = {
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
    "train.keep_every": (0, _COUNT), "train.restarts": (0, _COUNT),
    "train.mtbf": (_ABOVE_0, _REAL), "train.log_every": (1, _COUNT),
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
    "parallel.elastic": (0, _REAL), "parallel.outer_rate": (0, _REAL),
    "parallel.outer_momentum": (0, 1), "parallel.quorum": (0, _RANKS), "parallel.grace": (0, _REAL),
    "parallel.warm_start": (0, _COUNT)}


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


def check(config: Config, where: str) -> None:
    """Refuse values that no run could use; what depends on geometry is checked in geometry.py."""
    sections = [(n, getattr(config, n), n) for n in SECTIONS]
    sections += [("stages", stage, f"stages.{i}") for i, stage in enumerate(config.stages)]
    for rule, section, name in sections:
        for f in dataclasses.fields(section):
            if f"{rule}.{f.name}" in RANGES and getattr(section, f.name) != "auto":
                check_range(f"{name}.{f.name}", getattr(section, f.name),
                            *RANGES[f"{rule}.{f.name}"], where=f"{where}: ")
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
    if config.train.checkpoint_every == "auto":
        _check_interval(config, where)
    _check_schedule(config.update.schedule, where)
    _check_stages(config, where)
    if config.is_supervised:
        _check_classifier(config, where)
    _check_parallel(config, where)


def _check_interval(config: Config, where: str) -> None:
    """Refuse what needs to know the steps of checkpoints beforehand."""
    what = ""
    if config.train.keep_every:
        what = f"train.keep_every = {config.train.keep_every} keeps"
    elif config.is_supervised and config.classifier.validation:
        what = f"classifier.validation = {config.classifier.validation:g} looks at"
    if what:
        raise InputError(f"{where}: train.checkpoint_every = 'auto': {what} checkpoints of certain "
                         "steps: set it to a number, or that to 0")


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
    if p.outer_rate and (p.elastic or p.consistency != "asynchronous" or p.warm_start
                         or u.delay_compensation or u.staleness_scaled):
        raise refuse("parallel.outer_rate",
                     "the rounds of an outer optimizer have rules of their own: use "
                     "parallel.consistency = 'asynchronous', and neither parallel.elastic nor "
                     "parallel.warm_start, update.delay_compensation, update.staleness_scaled")
    if p.quorum > p.replicas:
        raise refuse("parallel.quorum", f"there are parallel.replicas = {p.replicas}: at most so "
                     "many")
    for key in ("quorum", "grace"):
        if getattr(p, key) and not p.outer_rate:
            raise refuse(f"parallel.{key}", "only an outer optimizer has one: set "
                         "parallel.outer_rate (0.7), or leave it 0")
    if (p.is_local or p.consistency == "synchronous") and p.fetch_every != p.push_every:
        raise refuse("parallel.push_every", "synchronous training, elastic averaging and outer "
                     "optimizers fetch and push together: parallel.fetch_every = "
                     f"{p.fetch_every} must be the same")
    if p.warm_start and p.consistency == "synchronous":
        raise refuse("parallel.warm_start",
                     "synchronous replicas start together, no gradient is stale: set it to 0")
    if p.backup and p.consistency != "synchronous":
        raise refuse("parallel.backup",
                     "only parallel.consistency = 'synchronous' has backup replicas")
