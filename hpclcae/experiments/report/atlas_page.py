"""The atlas as the page has it: numbers as JSON, pictures as sprites, a map of each stage."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt, prod
from typing import Any

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import optimum
from hpclcae.experiments.labelled_images import LabelledImages
from hpclcae.experiments.neurons import concept_of
from hpclcae.experiments.record import plain
from hpclcae.experiments.report import atlas
from hpclcae.experiments.report.atlas import Facts
from hpclcae.experiments.report.curves import Curve, curves
from hpclcae.experiments.report.sprites import Sprites, data_uri, mosaic, signed
from hpclcae.experiments.scan import Neuron, asked
from hpclcae.experiments.turning_heads import SCANNED, Head
from hpclcae.geometry import receptive_field
from hpclcae.utils.text import printable

THUMBNAIL = 48        # pixels, at most
THUMBNAILS = 12e6     # numbers of all thumbnails together, about
MOST_FILTERS = 25     # of the first stage, that a neuron's picture shows
STRONGEST_MAPS = 7    # of the stage below
#: From few to many right answers; each step darker to the eye (so that grey print tells them, too).
RAMP = np.array([[240, 249, 232], [186, 228, 188], [123, 204, 196], [67, 162, 202], [8, 88, 158]])


@dataclass
class Thumbnails:
    """Test images that are shown, small; each once, however many neurons show it."""
    sprites: Sprites
    numbers: dict[int, int] = field(default_factory=dict)  # position in the dataset: on a sheet

    @classmethod
    def of(cls, facts: Sequence[Facts], test: Dataset) -> "Thumbnails":
        """Choose a size with which all of them stay within `THUMBNAILS`."""
        count = np.unique(np.concatenate([at for fact in facts for at in fact.shown])).size
        most = min(THUMBNAIL, max(8, isqrt(int(THUMBNAILS / (count * test.channels)))))
        side = atlas.shrunk(np.zeros((1, test.rows, test.cols, test.channels)), most).shape[1]
        return cls(Sprites((side, side, test.channels), exact=False))

    def take(self, position: int, pixels: np.ndarray) -> None:
        """Take in one image, uint8 (row, col, channel)."""
        small = small_pictures(pixels[None], self.sprites.shape[0])[0]
        self.numbers[position] = self.sprites.add(small)


def small_pictures(pictures: np.ndarray, most: int = atlas.MEAN_SIDE) -> np.ndarray:
    """uint8 pictures (picture, row, col, channel) of side `most` at the largest."""
    return np.rint(atlas.shrunk(pictures, most)).astype(np.uint8)


def atlas_data(model: Model, test: Dataset, images: LabelledImages,
               stages: Sequence[dict[str, Any]], limit: int, named: Sequence[Neuron],
               heads: Mapping[str, Sequence[Head]] = {}, batch: int = 100) -> dict[str, Any]:
    """Collect everything that the page shows of some neurons of every stage.

    Parameters
    ----------
    stages : sequence of dict
        Of `results.read_neurons`: what is known of all neurons.
    limit : int
        Neurons of a stage, at most.
    named : sequence of Neuron
        These in any case.
    heads : mapping of str to sequence of Head
        They turn and nod before them, see `curves`.

    Raises
    ------
    InputError
        A response is not finite.
    """
    judged = atlas.judged_by(test, images)
    scores = [stage.get("development", stage["accuracy"]) for stage in stages]
    neurons = atlas.choose(scores, limit, named)
    facts = atlas.look_at(model, test, judged, neurons, batch)
    thumbnails = Thumbnails.of(facts, test)
    means = atlas.look_at_pixels(test, judged, facts, batch, thumbnails.take)
    found = curves(asked(model, neurons), test, judged, heads, batch=batch)
    optima = optimum.find(model, neurons, batch=batch)
    sprites = {"images": thumbnails.sprites, "means": Sprites.of([signed(mean) for mean in means]),
               "optima": Sprites.of(small_pictures(optima.pictures()))}
    for number in range(1, 1 + len(stages)):
        sprites[f"filters{number}"] = Sprites.of(
            [filter_picture(model, number - 1, neuron.where) for neuron in neurons
             if neuron.stage == number])
    place = thumbnails.numbers
    label = {at: (kind, shows) for at, kind, shows in zip(
        images.index.tolist(), judged.kind.tolist(), images.concept.tolist())}
    count, shown = int(judged.mine.sum()), int((judged.mine & images.concept).sum())
    return plain({
        "concept": printable(concept_of(test)), "honest": judged.honest,
        "judged": count, "judgedConcept": shown, "chance": max(shown, count - shown) / count,
        "kinds": list(map(printable, judged.kinds)),
        "kindCounts": np.bincount(judged.kind[judged.mine], minlength=len(judged.kinds)),
        "size": test.size, "groups": [name for name, _, _ in atlas.GROUPS],
        "highest": len(facts[0].top), "examples": found[0].images,
        "heads": len(heads.get("", ())), "scanned": len(heads.get(SCANNED, ())),
        "resampled": images.resampled,
        "contrast": optimum.CONTRAST, "starts": optimum.STARTS,
        "all": sum(score.size for score in scores),
        "images": {"at": list(place), "kind": [label[at][0] for at in place],
                   "shows": [int(label[at][1]) for at in place]},
        "stages": [stage_data(model, number, score, stage.get("final", stage["accuracy"]))
                   for number, (score, stage) in enumerate(zip(scores, stages))],
        "curves": [{"name": curve.name, "unit": curve.unit, "at": curve.at.round(3),
                    "unchanged": curve.unchanged, "beside": curve.beside} for curve in found],
        "neurons": [neuron_data(model, number, facts, place, found)
                    | {"optimum": _digits(optima.shown[number]), "agree": _digits(
                        optima.alike[number])} for number in range(len(facts))],
        "sprites": {name: each.layout() for name, each in sprites.items()}})


def stage_data(model: Model, stage: int, score: np.ndarray, shown: np.ndarray) -> dict[str, Any]:
    """Size of a stage (from 0), and the accuracy of the best map at each position as a picture."""
    best = np.take_along_axis(shown, score.argmax(axis=2)[..., None], 2)[..., 0]
    low, high = float(best.min()), float(best.max())
    at = (best - low) / (high - low) if high > low else np.ones(best.shape)
    at *= len(RAMP) - 1
    below = np.minimum(at.astype(int), len(RAMP) - 2)
    part = (at - below)[..., None]
    colours = RAMP[below] * (1 - part) + RAMP[below + 1] * part
    config, geometry = model.config.stages[stage], model.network.layout.geometry[stage]
    side = receptive_field(model.config, stage, 0, 0)[2]
    return {"rows": score.shape[0], "cols": score.shape[1], "maps": score.shape[2],
            "low": round(low, 4), "high": round(high, 4), "sees": min(side, model.config.data.size),
            "field": config.receptive_field, "pooling": config.pooling,
            "inputs": "x".join(map(str, geometry.input)),
            "filters": filter_caption(model, stage),
            "picture": data_uri(np.rint(colours).astype(np.uint8), True)}


def neuron_data(model: Model, number: int, facts: Sequence[Facts], place: dict[int, int],
                found: Sequence[Curve]) -> dict[str, Any]:
    """One neuron, with few digits.

    Parameters
    ----------
    number : int
        Of the neuron in `facts` and in the curves that were `found`.
    place : dict
        Number of a thumbnail by the position of its image in the dataset.
    """
    fact = facts[number]
    stage, (row, col, map_) = fact.neuron.stage, fact.neuron.where
    size = model.config.data.size
    first = next(n for n, other in enumerate(facts) if other.neuron.stage == stage)
    field_ = receptive_field(model.config, stage - 1, row, col)
    return {"stage": stage, "row": row, "col": col, "map": map_, "filter": number - first,
            "sees": [min(edge, size) for edge in field_],
            "accuracy": round(fact.accuracy, 4), "interval": _rounded(fact.interval, 4),
            "auc": round(fact.auc, 4), "threshold": _digits(fact.threshold),
            "groups": fact.groups,
            "rest": _digits(fact.rest), "low": _digits(fact.lowest), "high": _digits(fact.highest),
            "fires": _rounded(fact.fires, 4), "histogram": fact.histogram,
            "shown": [[place[int(at)] for at in group] for group in fact.shown],
            "responses": [[_digits(value) for value in group] for group in fact.responses],
            "alike": [[other, round(correlation, 3)] for other, correlation in fact.alike],
            "curves": [[[_digits(value) for value in curve.mean[number]],
                        [_digits(value) for value in curve.deviation[number]]] for curve in found]}


def _rounded(values: Sequence[float] | np.ndarray, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def pooled_positions(model: Model, stage: int, row: int, col: int) -> list[tuple[int, int]]:
    """Positions of the filters that an output of a stage (from 0) pools.

    With contrast normalisation those of the pooled unit in the middle of its window.
    """
    config = model.config.stages[stage]
    border = config.lcn // 2 * (2 if config.lcn_border == "valid" else 1)
    top, left = ((at + border) * config.pooling_stride for at in (row, col))
    return [(top + down, left + right) for down in range(config.pooling)
            for right in range(config.pooling)]


def filter_picture(model: Model, stage: int, where: tuple[int, int, int]) -> np.ndarray:
    """The filters of a neuron (row, col, map) of a stage (from 0) as one uint8 picture.

    `filter_caption` says what it shows.
    """
    row, col, map_ = where
    positions = pooled_positions(model, stage, row, col)
    filters = np.stack([model.filters_at(stage, *at)[..., map_].astype(np.float64)
                        for at in positions])  # (position, krow, kcol, map in)
    if stage == 0:
        kept = filters[:MOST_FILTERS]
        return mosaic(np.stack([signed(each) for each in kept]), isqrt(len(kept) - 1) + 1)
    if prod(filters.shape[1:3]) == 1:
        return signed(filters.reshape(len(filters), -1, 1))
    middle = filters[len(filters) // 2]
    strength = np.sqrt((middle ** 2).sum(axis=2))
    order = np.argsort(-(middle ** 2).sum(axis=(0, 1)), kind="stable")[:STRONGEST_MAPS]
    shown = np.stack([strength, *np.moveaxis(middle[..., order], 2, 0)])
    largest = np.abs(shown[1:]).max() or 1.0
    pixels = np.concatenate([signed(shown[:1]),
                             np.rint(127.5 + 127.5 * shown[1:] / largest).astype(np.uint8)])
    return mosaic(pixels[..., None], -(-len(pixels) // 2))


def filter_caption(model: Model, stage: int) -> str:
    """What `filter_picture` shows for the neurons of a stage (from 0)."""
    config, geometry = model.config.stages[stage], model.network.layout.geometry[stage]
    side = f"{config.receptive_field}x{config.receptive_field}"
    zero = "Grey is zero, white positive, black negative."
    if stage == 0:
        count = config.pooling ** 2
        shown = f"The first {MOST_FILTERS} of the" if count > MOST_FILTERS else "The"
        return (f"{shown} {count} filters of {side} whitened pixels that the neuron pools, each by "
                f"its own scale. {zero}" if count > 1 else
                f"Its filter of {side} whitened pixels. {zero}")
    maps = geometry.input[2]
    if config.receptive_field == 1:
        return (f"Weights of the {config.pooling ** 2} pooled filters (rows) on the {maps} maps of "
                f"the stage below (columns). {zero}")
    which = ("of the middle one of the filters that it pools" if config.pooling > 1
             else "of its filter")
    count = min(STRONGEST_MAPS, maps)
    return (f"Weights {which}, on {side} positions of the stage below: first the strength over all "
            f"{maps} maps, then the {count} strongest maps. {zero}")
