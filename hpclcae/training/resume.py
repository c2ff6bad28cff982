"""How a run begins: where from, with which images, and whether all ranks mean the same."""
import hashlib
import sys
from pathlib import Path

import numpy as np

from hpclcae import checkpoint, config as configuration
from hpclcae.checkpoint import BlockState, RunState
from hpclcae.config import Config
from hpclcae.data.classes import ClassSplit
from hpclcae.data.dataset import Dataset
from hpclcae.data.dealing import Deal
from hpclcae.data.minibatches import MinibatchStream, sample
from hpclcae.model import preprocess
from hpclcae.model.network import Network
from hpclcae.model.phases import meetings, phase_of, phases
from hpclcae.partition.communicator import Communicator
from hpclcae.utils.errors import InputError, shown
from hpclcae.utils.text import to_bytes

#: Settings that may change when a run is resumed; more train.steps train longer, and the schedule
#: follows.
_MAY_CHANGE = {"train.steps", "train.checkpoint_every", "train.keep", "train.keep_every",
               "train.restarts", "train.mtbf",
               "train.log_every", "data.train", "data.test", "data.keep", "update.rate"}

#: Settings of a stage that decide what its weights and the numbers above it mean.
_OF_THE_NETWORK = ("receptive_field", "stride", "maps", "pooling", "pooling_stride", "epsilon",
                   "lcn", "lcn_sigma", "lcn_floor", "lcn_border", "log", "standardise", "contrast",
                   "whiten", "whiten_by", "window", "window_stride", "encoder_norm")
_OF_DECODERS = ("weights", "decoder_norm")


def starting_point(config: Config, run: Path, resume: bool, world: Communicator) -> Path | None:
    """The checkpoint to go on from, or None for a new run; all ranks come to the same.

    Raises
    ------
    InputError
        The folder holds another run, or one that is not to be resumed; or the ranks do not agree on
        what to do.
    """
    found = checkpoint.saved(run / "checkpoints")
    check_agreement(world, {"configuration": configuration.dumps(config),
                            "checkpoints in the run folder": found[-1].name if found else "none"})
    if not found:
        return None
    if not resume:
        raise InputError(f"{run} already holds a run, up to {found[-1].name}: go on with --resume, "
                         "or choose another --out")
    old, new = configuration.flatten(
        checkpoint.load_state(found[-1]).config), configuration.flatten(config)
    for key in sorted(old.keys() | new.keys()):
        # earlier versions kept decoders beside a classifier
        may_change = key in _MAY_CHANGE or key.startswith("parallel.") or (
            config.is_supervised and key.startswith("stages.") and key.endswith(".weights"))
        if old.get(key) != new.get(key) and not may_change:
            raise InputError(f"{found[-1]} was written with {key} = {old.get(key)!r}, the "
                             f"configuration now says {new.get(key)!r}: change it back, or start a "
                             "new run with another --out")
    if old["update.rate"] != new["update.rate"] and world.rank == 0:
        print(f"update.rate = {config.update.rate:g} from here on, it was {old['update.rate']:g} "
              f"up to {found[-1].name}; metrics and checkpoints say which", file=sys.stderr)
    return found[-1]


def check_agreement(communicator: Communicator, facts: dict[str, str]) -> None:
    """Refuse to start when the ranks were given different things: they would compute one network
    from two.

    Raises
    ------
    InputError
        Names what differs, and the ranks that differ from the first.
    """
    digests = np.zeros((len(facts), communicator.size))
    digests[:, communicator.rank] = [int.from_bytes(hashlib.sha256(to_bytes(fact)).digest()[:6],
                                                    "big") for fact in facts.values()]
    for name, row in zip(facts, communicator.allreduce_sum(digests)):
        others = np.flatnonzero(row != row[0])
        if others.size:
            raise InputError(f"the {name} of rank {', '.join(map(str, others))} is not that of "
                             "rank 0: start all ranks with the same files and arguments")


def check_warm_start(config: Config) -> None:
    """Refuse a warm start in which the first replica would wait for those that wait for it.

    Raises
    ------
    InputError
        Names the step at which replicas meet.
    """
    first = min(meetings(config), default=config.parallel.warm_start)
    if config.parallel.warm_start > first:
        raise InputError(f"parallel.warm_start = {config.parallel.warm_start}: all replicas meet "
                         f"after step {first}, where the first stage is finished; make it at most "
                         f"{first}")


def weights_of(config: Config, network: Network) -> BlockState:
    """What train.weights names, as the beginning of a new run.

    A classifier begins with zeros. Where its stages are to begin with random weights
    (classifier.start), only the preprocessing is taken.

    Raises
    ------
    InputError
        It cannot be read, or its network is another one: names the setting that differs.
    """
    path = checkpoint.find(config.train.weights)
    old = checkpoint.load_state(path).config
    same = ("data.size", "data.channels", "train.dtype", *(
        f"stages.{index}.{key}" for index in range(max(len(old.stages), len(config.stages)))
        for key in (*_OF_THE_NETWORK, *(() if config.is_supervised else _OF_DECODERS))))
    before, now = configuration.flatten(old), configuration.flatten(config)
    for key in same:
        if before.get(key) != now.get(key):
            raise InputError(f"train.weights = {config.train.weights!r} has {key} = "
                             f"{before.get(key)!r}, the configuration says {now.get(key)!r}: use "
                             "the network of those weights")
    if config.classifier.start == "random":
        return BlockState(config=config, step=0,
                          preprocessing=checkpoint.load_state(path).preprocessing,
                          parameters=network.parameters(config.train.seed))
    state = checkpoint.load_block(path, network.block, stages_only=True)
    return BlockState(config=config, step=0, preprocessing=state.preprocessing,
                      conditioners=state.conditioners[:len(config.stages)],
                      parameters=state.parameters)


def open_dataset(config: Config) -> Dataset:
    """The training images.

    Raises
    ------
    InputError
        They do not fit the configuration.
    """
    dataset = Dataset(config.data.train)
    if (dataset.rows, dataset.cols, dataset.channels) != (config.data.size, config.data.size,
                                                          config.data.channels):
        raise InputError(f"{config.data.train} holds images of {dataset.rows} x {dataset.cols} x "
                         f"{dataset.channels}, the configuration says data.size = "
                         f"{config.data.size}, data.channels = {config.data.channels}: change the "
                         "configuration or make the dataset again")
    return dataset


def class_split(config: Config, dataset: Dataset,
                known: tuple[str, ...] = ()) -> ClassSplit | None:
    """Which images a classifier is trained on, stopped by and tested on; None without one.

    Parameters
    ----------
    known : tuple of str
        Names of the classes of the checkpoint that the run goes on from.

    Raises
    ------
    InputError
        The images have no classes, others than the classifier's, or too few of one.
    """
    settings = config.classifier
    if not config.is_supervised:
        return None
    split = ClassSplit.of(dataset, settings.validation, config.train.seed,
                          settings.per_class or None)
    if len(split.names) != settings.classes:
        raise InputError(f"{dataset.path} has {len(split.names)} classes, classifier.classes = "
                         f"{settings.classes}: set it to that number, or use other images")
    if known and tuple(split.names) != known:
        other = next(index for index, name in enumerate(known) if name != split.names[index])
        raise InputError(f"class {other} of {dataset.path} is {shown(split.names[other])}, that of "
                         f"the checkpoint is {shown(known[other])}: use the images that the "
                         "run began with")
    return split


def minibatches(config: Config, dataset: Dataset, split: ClassSplit | None, replica: int,
                deal: Deal) -> MinibatchStream:
    """The minibatches of a replica."""
    return MinibatchStream(dataset, phases(config), config.train.seed, replica, deal,
                           config.data.mirror, config.data.crop, split.train if split else None)


def deal_of(config: Config, state: RunState | None, dataset: Dataset,
            split: ClassSplit | None) -> Deal:
    """How images are dealt from where a run begins (None: anew) or goes on.

    For another number of replicas than before, what is left of the epoch is dealt again.
    """
    replicas = config.parallel.replicas
    if state is None or not state.cursors:
        return Deal(replicas)
    deal = state.deal
    if replicas == deal.replicas:
        return deal
    position, *positions = (phase_of(config, step).positions(step).start
                            for step in (deal.step, *state.cursors))
    total = len(split.train) if split else dataset.count
    return deal.again(replicas, state.step, [after - position for after in positions], total)


def fit_preprocessing(config: Config, dataset: Dataset) -> preprocess.Preprocessing:
    """Fit on images that the seed chooses: the same in every run, on every rank."""
    count = min(config.preprocess.whitening_images, dataset.count)
    chosen = sample(np.random.default_rng(config.train.seed), dataset.count, count)
    return preprocess.fit(config.preprocess, dataset.read(np.sort(chosen)))
