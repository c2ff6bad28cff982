"""Results of ``hpclcae neurons`` in a run folder: where they lie, how they are written and read."""
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.experiments.close_look import BINS, FINE_BINS, JudgedNeuron
from hpclcae.experiments.made_from import require_same, weights_fingerprint
from hpclcae.experiments.neurons import run_folder
from hpclcae.experiments.single_neurons import Population
from hpclcae.utils.errors import InputError, shown
from hpclcae.utils.files import check_output, is_json, read_hdf5, replacing, replacing_hdf5
from hpclcae.utils.reading import reading
from hpclcae.utils.text import storable

KIND = "hpclcae neurons"
SCHEMA = 2  # 1: no fingerprints, no halves of the dataset; `best` only
ARRAYS = ("accuracy", "auc", "auc_resolution", "threshold", "minimum", "maximum", "development",
          "final")
AUC_COMPUTED = (f"from the counts of images in {BINS} equal bins from minimum to maximum; pairs of "
                "images in one bin count half, so the exact AUC lies within half the share of such "
                "pairs (auc_resolution)")


def check_result(file: Path) -> None:
    """See, before the work, that a file can be written and replaces only results of this command.

    Raises
    ------
    InputError
        It cannot, or would replace something else.
    """
    check_output(file, lambda path: is_json(path, "kind", KIND), "a result (hpclcae neurons)")


def save_json(file: Path, results: Mapping[str, object]) -> None:
    """Write results as JSON, in a folder that is made; None stands for what cannot be said."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        partial.write_text(json.dumps(results, indent=1, allow_nan=False), encoding="utf-8")


def save_neurons(file: Path, stages: Sequence[Population],
                 attributes: Mapping[str, object]) -> None:
    """Write what is known of every neuron.

    Every stage is a group ``stage1`` and so on, with arrays (row, col, map):

    ``accuracy``, ``threshold``
        The accuracy of the best of 20 thresholds over all images, a share, and that threshold.
    ``auc``
        Area under the ROC curve, a share, from the 21 bins between the thresholds: pairs of images
        in one bin count half.
    ``auc_resolution``
        Half the share of such pairs: the exact AUC is no further from ``auc`` than this.
    ``minimum``, ``maximum``
        The smallest and the largest response.
    ``development``, ``final``
        The accuracy of the best of 20 thresholds on the development half, and that of the same
        threshold on the final half. Only if the halves are such that it can be said.

    ``stage1/best`` holds the best neuron of all images, ``stage1/chosen`` the one that the
    development half chose as the final half judges it, ``stage1/by_training`` the one that training
    labels chose, judged alike: class histograms (label, bin) between its minimum and maximum, and
    the images with its highest responses (``stimuli``, positions in the dataset). The AUC among
    the attributes is from these finer bins.
    """
    with replacing_hdf5(file) as store:
        store.attrs.update(storable(attributes))
        for number, stage in enumerate(stages, start=1):
            group = store.create_group(f"stage{number}")
            for name in ARRAYS:
                if getattr(stage, name) is not None:
                    group[name] = getattr(stage, name)
                    group[name].attrs["axes"] = ["row", "col", "map"]
            group["auc"].attrs["computed"] = AUC_COMPUTED
            for name in ("best", "chosen", "by_training"):
                if getattr(stage, name) is not None:
                    _save_neuron(group.create_group(name), getattr(stage, name))


def _save_neuron(group: h5py.Group, neuron: JudgedNeuron) -> None:
    for name in ("histogram", "stimuli", "stimuli_response"):
        group[name] = getattr(neuron, name)
    for name in ("where", "neurons", "accuracy", "auc", "auc_resolution", "threshold", "minimum",
                 "maximum", "false_alarms"):
        group.attrs[name] = getattr(neuron, name)


def read_neurons(run: str, model: Model | None = None) -> dict[str, Any]:
    """Read neurons.h5 of a run: its attributes, and a list ``stages`` of dicts.

    Each stage has ``accuracy`` and ``threshold`` (row, col, map), ``development`` and ``final``
    where they can be said, and of the neuron that the development half chose (in older results, and
    where halves say nothing, of the best of all images) its arrays, its attributes as ``best``, and
    whether it was ``honest``.

    Parameters
    ----------
    run : str
        The folder of the run, or one of its checkpoints.
    model : Model, optional
        What the results are about, if it is already loaded.

    Raises
    ------
    InputError
        It is missing, not what this version writes, or about other weights than those of the
        checkpoint, or of the run's newest one.
    """
    folder = run_folder(run)
    file, command = folder / "neurons.h5", shlex.join(["hpclcae", "neurons", run])
    remedy = f"{command} writes it"
    if not file.is_file():
        raise InputError(f"there is no {file}: {remedy}")
    with reading(file, "HDF5 file of neurons", remedy), read_hdf5(file) as store:
        neurons = dict(store.attrs)
        if neurons["kind"] != KIND or neurons["schema"] > SCHEMA:
            raise InputError(f"{file} is of another kind or a newer version: {remedy}")
        names = sorted((name for name in store if name.startswith("stage")),
                       key=lambda name: int(name[5:]))
        neurons["stages"] = [_read_stage(store[name]) for name in names]
        step = int(neurons["step"])
        for key, kind in (("concept", str), ("test", str), ("test_images", (int, np.integer))):
            if not isinstance(neurons[key], kind):
                raise ValueError(f"{key!r} is {shown(neurons[key])}")
    model = model or Model.load(run)
    again = f"{command} writes it again"
    if step != model.step:
        raise InputError(f"{file} is about step {step:,}, {model.path} is step {model.step:,}: "
                         f"{again}")
    require_same(neurons.get("weights_fingerprint"), weights_fingerprint(model), file,
                 f"network than {model.path}", again)
    with reading(file, "HDF5 file of neurons", again):
        shapes = [geometry.output for geometry in model.network.layout.geometry]
        if not 0 < len(neurons["stages"]) <= len(shapes):
            raise ValueError(f"it has {len(neurons['stages'])} stages")
        for number, (stage, shape) in enumerate(zip(neurons["stages"], shapes), start=1):
            for key in ("accuracy", "threshold", "development", "final"):
                if key in stage and (stage[key].shape != shape or not np.isfinite(stage[key]).all()
                                     ):
                    raise ValueError(f"'stage{number}/{key}' has another shape, or numbers that "
                                     "are not finite")
            if not all(0 <= at < size for at, size in zip(stage["best"]["where"], shape,
                                                          strict=True)):
                raise ValueError(f"stage {number} has no neuron {stage['best']['where']}")
            if not ((stage["stimuli"] >= 0) & (stage["stimuli"] < neurons["test_images"])).all():
                raise ValueError("its stimuli are not among the test images")
    return neurons


def _read_stage(stage: h5py.Group) -> dict[str, Any]:
    neuron = stage["chosen" if "chosen" in stage else "best"]
    best = dict(neuron.attrs)
    for key in ("accuracy", "auc", "minimum", "maximum", "threshold"):
        if not math.isfinite(best[key]):
            raise ValueError(f"{key!r} is not finite")
    if neuron["histogram"].shape != (2, FINE_BINS):
        raise ValueError("a histogram has another shape")
    halves = {key: stage[key][:] for key in ("development", "final") if key in stage}
    return {"accuracy": stage["accuracy"][:], "threshold": stage["threshold"][:], **halves,
            "best": best, "honest": "chosen" in stage,
            **{key: value[:] for key, value in neuron.items()}}
