"""A trained network as something to ask: the numbers of the formulas on what h5py reads."""
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hpclcae.checkpoint import BlockState
from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.model import preprocess
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.optimizers import SLOTS
from hpclcae.model.responses import Responses
from hpclcae.utils.errors import InputError
from tests.support import naive
from tests.support.images import structured_images
from tests.support.saving import save

IMAGES = structured_images(11, seed=4)


def saved_run(config, folder, step=3):
    """A run folder with one checkpoint of random weights."""
    network = Network(Layout(config))
    with Dataset(config.data.train) as dataset:
        fitted = preprocess.fit(config.preprocess, dataset.read(np.arange(dataset.count)))
    state = BlockState(
        config=config, step=step, preprocessing=fitted, parameters=network.parameters(2),
        update_state={slot: network.parameters() for slot in SLOTS[config.update.rule]})
    save(folder, state, 3)
    return state, network


def effective(weights, norm, gain):
    """Filters as the forward pass uses them, from those stored (row, col, krow, kcol, c, map)."""
    return weights if norm == "free" else gain * weights / np.sqrt(
        (weights ** 2).sum(axis=(2, 3, 4), keepdims=True))


@pytest.mark.parametrize("weights, norm", [("untied", "free"), ("tied", "unit")])
def test_responses_are_the_formulas_on_the_stored_weights(tiny_config, tmp_path, weights, norm):
    changes = [f"stages.{i}.{key}" for i in range(3)
               for key in (f"weights={weights}", f"encoder_norm={norm}")]
    _, network = saved_run(tiny_config("train.dtype=float64", *changes), tmp_path)
    model = Model.load(tmp_path)
    x = model.prepare(IMAGES)
    responses = model.responses(x)
    with h5py.File(model.path / "model.h5") as file:
        for i, (stage, plan,
                answer) in enumerate(zip(model.config.stages, network.stages, responses)):
            filters = effective(file[f"stage{i + 1}/encode"][...], norm, plan.gain)
            assert np.allclose(model.filters(i), filters, rtol=1e-12)
            h = naive.l2_pooling(naive.encode(filters, x), stage.pooling, 1, stage.epsilon)
            x = naive.contrast_norm(h, stage.lcn, stage.lcn_sigma, stage.lcn_floor)
            assert answer.shape == x.shape and abs(answer - x).max() < 1e-10 * abs(x).max()


def test_a_loaded_model_answers_bit_for_bit_like_the_network_that_was_saved(tiny_config, tmp_path):
    state, network = saved_run(tiny_config(), tmp_path)
    model = Model.load(tmp_path)
    assert (model.step, model.config, model.path.name) == (3, state.config, "step-00000003")
    x = state.preprocessing.preprocessor(24, network.dtype)(IMAGES)
    assert np.array_equal(model.prepare(IMAGES), x)
    expected = [y.copy() for y in Responses(network, state.parameters)(x)]
    for answer, wanted in zip(model.responses(x), expected):
        assert np.array_equal(answer, wanted)
    assert model.responses(x)[2].shape == (1, 1, 2, 11)


def test_random_weights_keep_architecture_and_preprocessing(tiny_config, tmp_path):
    saved_run(tiny_config(), tmp_path)
    model = Model.load(tmp_path)
    one, same, other = (model.with_random_weights(seed) for seed in (1, 1, 9))
    assert one.step == 0 and one.config == model.config
    assert np.array_equal(one.prepare(IMAGES), model.prepare(IMAGES))
    x = model.prepare(IMAGES)
    first = [m.responses(x)[0].copy() for m in (model, one, same, other)]
    assert np.array_equal(first[1], first[2])
    assert not np.allclose(first[0], first[1]) and not np.allclose(first[1], first[3])
    assert np.array_equal(one.filters(0), same.filters(0))


def test_a_run_that_was_never_trained_or_does_not_exist_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError,
                           match="neither a checkpoint nor the folder of a run with checkpoints"):
            Model.load(path)


@pytest.mark.parametrize("size, channels", [(25, 1), (24, 3)])
def test_images_of_another_size_are_refused(tiny_config, tmp_path, size, channels):
    saved_run(tiny_config(), tmp_path)
    model = Model.load(tmp_path)
    with pytest.raises(InputError,
                       match=f"images are {size} x {size} x {channels}, .* takes 24 x 24 x 1$"):
        model.prepare(structured_images(2, size, channels))


def test_the_tile_changes_no_answer(tiny_config, tmp_path):
    config = tiny_config("train.dtype=float64")
    answers = []
    for tile in (1, 2, 5):
        tiled = replace(config, stages=tuple(replace(stage, tile=tile) for stage in config.stages))
        saved_run(tiled, tmp_path / str(tile))
        model = Model.load(tmp_path / str(tile))
        answers.append(model.responses(model.prepare(IMAGES)))
    for top, reference in zip(answers[1:], [answers[0]] * 2):
        for answer, wanted in zip(top, reference):
            assert abs(answer - wanted).max() < 1e-12
