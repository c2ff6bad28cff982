"""The command ``hpclcae show``: a configuration in layers, parameters, memory and FLOP."""
import argparse

from hpclcae import config as configuration
from hpclcae.cluster.memory import SCORES
from hpclcae.commands.arguments import output
from hpclcae.commands.finetune import supervised
from hpclcae.config import Config
from hpclcae.geometry import (StageGeometry, classifier_weights, network_geometry, parameters,
                              pixels_seen, training_flop)
from hpclcae.model.layers.local_filter import LocalFilter
from hpclcae.model.optimizers import SLOTS
from hpclcae.model.phases import phases
from hpclcae.partition import picture as partition_picture
from hpclcae.partition.blocks import Grid
from hpclcae.partition.cost import choose_grid
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", help="TOML file, for instance run/paper.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set data.size=100")
    parser.add_argument("--on", metavar="CHECKPOINT",
                        help="the configuration says how a classifier is trained on this network "
                        "(hpclcae finetune); with --settings it becomes one for hpclcae train, "
                        "launch and plan")
    parser.add_argument("--grid", metavar="ROWSxCOLUMNS",
                        help="of blocks, for --partition, for instance 13x13")
    parser.add_argument("--partition", type=output, metavar="PNG",
                        help="draw who owns and who needs what in the first stage on that grid "
                        "(extra: figures)")
    parser.add_argument("--settings", action="store_true",
                        help="print the resolved configuration instead")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    config = (supervised(args.on, args.configuration, args.changes) if args.on
              else configuration.load(args.configuration, args.changes))
    if args.partition is not None:
        if args.grid is None:
            raise InputError("--partition needs a grid: add for instance --grid 2x3")
        blocks = 1 if args.grid == "auto" else Grid.parse(args.grid).size
        partition_picture.write(config, choose_grid(config, blocks, args.grid), args.partition)
        print(args.partition)
        return 0
    print(configuration.dumps(config) if args.settings else describe(config))
    return 0


def describe(config: Config) -> str:
    """The layer table and what it costs, as text."""
    stages = network_geometry(config)
    size = f"{config.data.size}x{config.data.size}x{config.data.channels}"
    columns = [("stage", ""), ("sublayer", ""), ("window", ""), ("output", ">"), ("weights", ">"),
               ("GFLOP/image", ">"), ("sees pixels", ">")]
    rows = [("", "image", "", size, "", "", "1")]
    joint = config.train.gradient == "joint"
    for i, (stage, plan, seen) in enumerate(zip(
            config.stages, stages, (min(n, config.data.size) for n in pixels_seen(config)))):
        flop = plan.training_flop(joint and i > 0) / 1e9
        if config.is_supervised:  # nothing is decoded
            flop = 2 * plan.encoder_weights * (3 if i else 2) / 1e9
        rows.append((str(i + 1), f"filter, {stage.weights}",
                     f"{stage.receptive_field}x{stage.receptive_field}",
                     _shape(plan.filtered), f"{plan.parameters:,}", f"{flop:.4g}", ""))
        rows.append(("", "L2 pooling", f"{stage.pooling}x{stage.pooling}", _shape(plan.pooled), "",
                     "", "" if stage.lcn else str(seen)))
        if stage.log or stage.standardise:
            parts = ["logarithm"] * stage.log + ["standardised"] * stage.standardise
            rows.append(("", ", ".join(parts), "", _shape(plan.pooled), "", "", ""))
        if stage.lcn:
            rows.append(("", f"contrast norm., {stage.lcn_border}", f"{stage.lcn}x{stage.lcn}",
                         _shape(plan.output), "", "", str(seen)))
        if stage.contrast or stage.whiten:
            parts = (["image contrast"] * stage.contrast
                     + [f"{stage.whiten} directions"] * (stage.whiten > 0))
            side = f"{stage.window}x{stage.window}" if stage.window else "map"
            rows.append(("", ", ".join(parts), side, _shape(plan.passed_on), "", "", ""))
    if config.is_supervised:
        weights = classifier_weights(config)
        parts = [f"classes, {config.classifier.loss}"]
        parts += ["standardised"] * config.classifier.standardise
        rows.append(("", ", ".join(parts), "map", f"{config.classifier.classes:,}",
                     f"{weights:,}", f"{6 * weights / 1e9:.4g}", str(config.data.size)))
    return "\n".join([table(columns, rows, rule=False), "", *_costs(config, stages)])


def _costs(config: Config, stages: tuple[StageGeometry, ...]) -> list[str]:
    encoder, learned = sum(s.encoder_weights for s in stages), parameters(config)
    item, batch = 4 if config.train.dtype == "float32" else 8, config.train.batch
    tiled = sum(_tiled(config, i, s) for i, s in enumerate(stages))
    slots = len(SLOTS[config.update.rule])
    # Kept from forward to backward: input and residual, z, h, g and y; scratch is about one stage
    # more.
    kept = [2 * _size(s.input) + _size(s.filtered) + _size(s.pooled) + 2 * _size(s.output)
            for s in stages]
    activations = (sum(kept) + max(kept)) * batch * item
    if config.is_supervised:
        tiled += learned - sum(s.parameters for s in stages)
        scores = config.classifier.classes * batch * item
        activations += 3 * _size(stages[-1].output) * batch * item + SCORES * scores
    whole = sum((phase.end - phase.first) * phase.batch
                * training_flop(config, phase.stage, config.train.cache != "none")
                for phase in phases(config))
    images = sum((phase.end - phase.first) * phase.batch for phase in phases(config))
    flop = whole / images
    return [f"encoder weights    {encoder:,} (the paper's 1.15 billion connections count these)",
            f"learned parameters {learned:,} = {_bytes(learned * item)} in "
            f"{config.train.dtype}",
            f"memory of training {_bytes(tiled * item)} parameters in kernel tiles + "
            f"{_bytes(tiled * slots * item)} for rule '{config.update.rule}' + about "
            f"{_bytes(activations)} activations of {batch} images",
            f"work               {flop / 1e9:.4g} GFLOP per image and training step, "
            f"{flop * batch / 1e9:.4g} per minibatch, "
            f"{whole / 1e12:.4g} TFLOP for {config.train.steps} steps",
            *_classifier_costs(config, item),
            f"training           {config.train.gradient}, {config.update.rule}, rate "
            f"{config.update.rate:g}"]


def _classifier_costs(config: Config, item: int) -> list[str]:
    """What a classifier adds: memory, the features that may be kept, and what a step sends."""
    if not config.is_supervised:
        return []
    settings = config.classifier
    batch = settings.batch or config.train.batch
    features = _size(network_geometry(config)[-1].output)
    weights, scores = classifier_weights(config), settings.classes * batch * item
    return [f"classifier         {settings.classes:,} classes x {features:,} features = {weights:,}"
            f" weights, {_bytes(weights * item)}; {settings.steps} steps alone, of {batch} images, "
            f"{4 * weights * batch / 1e9:.4g} GFLOP each; kept features {_bytes(2 * features)} an "
            "image",
            f"on a grid          every block has the weights of its features; a step sums "
            f"{_bytes(scores)} of scores over the blocks; with servers a replica fetches and "
            f"pushes {_bytes(2 * weights * item)} a step for the classifier"]


def _tiled(config: Config, index: int, stage: StageGeometry) -> int:
    settings = config.stages[index]
    plan = LocalFilter(*stage.input, settings.maps, settings.receptive_field, settings.stride,
                       settings.tile)
    rows, cols, inputs, units = plan.shape
    return rows * cols * inputs * units * (1 if stage.tied else 2)


def _size(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]


def _shape(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.2f} GB"
