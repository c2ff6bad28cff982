"""The classifier: its objective and its gradient through the whole stack; any grid, any parts."""
import dataclasses

import numpy as np
import pytest

from hpclcae.config import ClassifierConfig, Config, DataConfig, StageConfig, TrainConfig
from hpclcae.model.classifier import balanced, probabilities
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.phases import phases
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks
from hpclcae.utils.errors import InputError
from tests.support.gradient_check import directional_error

IMAGES, CLASSES = 5, 7
LABELS = np.array([0, 3, 6, 3, 1])
STAGES = {
    "plain": (StageConfig(receptive_field=4, maps=3, pooling=3, lcn=3),
              StageConfig(receptive_field=3, maps=2, pooling=2, lcn=3)),
    "unit norms": (StageConfig(receptive_field=4, maps=3, pooling=3, lcn=0, weights="tied",
                               encoder_norm="unit"),
                   StageConfig(receptive_field=3, maps=2, pooling=2, lcn=0, encoder_norm="unit")),
    "conditioners": (StageConfig(receptive_field=4, maps=3, pooling=3, lcn=0, log=True,
                                 standardise=True, contrast=True, whiten=5),
                     StageConfig(receptive_field=3, maps=4, pooling=1, lcn=0, standardise=True,
                                 whiten=3, window=2),
                     StageConfig(receptive_field=1, maps=3, pooling=2, lcn=0))}


def supervised(stages="plain", parts=1, dtype="float64", **settings):
    """A small network with a classifier."""
    classifier = ClassifierConfig(**{"loss": "logistic", "classes": CLASSES, "l2": 0.03,
                                     "parts": parts, "steps": 1} | settings)
    return Config(DataConfig(size=18, channels=1), stages=STAGES[stages], classifier=classifier,
                  train=TrainConfig(dtype=dtype, steps=3, batch=IMAGES))


class Setup:
    """A network or one block of it, with random weights everywhere, and images."""

    def __init__(self, config, grid=Grid(1, 1), communicator=None):
        self.config = config
        self.network = network = Network(Layout(config, grid), communicator)
        network.condition_unfitted()
        self.parameters = network.parameters(1)
        stored = self.network.layout.stored_shapes
        for name, site in network.block.sites.items():  # the same whatever the grid
            if name.startswith("classifier/"):
                key = "classifier/weights", "classifier/bias"
                first = next((p.first for p in network.layout.parts if name in p), 0)
                shape = *stored[name][:-1], CLASSES
                whole = np.random.default_rng(len(key["bias" in name])).standard_normal(shape)
                whole = whole[..., first:first + stored[name][-1]]
                where = slice(*site.owned.rows), slice(*site.owned.cols)
                values = whole[where].reshape(self.parameters[name].shape)
                self.parameters[name][...] = 0.3 * values
        images = np.random.default_rng(0).standard_normal((18, 18, 1, IMAGES))
        held = network.block.plan.stages[0].x.held
        self.x = np.ascontiguousarray(images[slice(*held.rows), slice(*held.cols)],
                                      config.train.dtype)
        if network.classifier.config.balance:
            network.weigh(LABELS)

    def objective(self):
        self.states = self.network.forward(self.parameters, self.x, labels=LABELS)
        return self.network.classifier.loss.objective

    def gradients(self, dx=None, last=None):
        """Objective, and gradients of all parameters as one vector."""
        value, gradient = self.objective(), self.parameters.like()

        def on_gradient(name, row, values):
            gradient[name][row] = values
        self.network.backward(self.states, on_gradient, dx, last)
        return value, gradient


# ---- the gradient --------------------------------------------------------------------------------

@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_the_gradient_through_the_whole_stack_is_the_derivative(stages, loss):
    setup = Setup(supervised(stages, loss=loss, balance=True))
    dx = np.zeros_like(setup.x)
    _, gradient = setup.gradients(dx)
    live = setup.parameters.like()
    for name, plan in setup.network.block.filters.items():
        ones = np.ones(setup.network.layout.stored_shapes[name])
        for j in range(plan.tile_rows):
            plan.pack_row(ones[j * plan.tile:(j + 1) * plan.tile], live[name], j)
    for name in setup.parameters.views:
        if name.endswith("decode"):
            assert not gradient[name].any()  # nothing is decoded
            continue
        assert directional_error(setup.objective, setup.parameters[name], gradient[name],
                                 live[name]) < 1e-7, name
    assert directional_error(setup.objective, setup.x, dx) < 1e-7


def test_alone_it_leaves_the_stages_and_computes_from_their_responses():
    setup = Setup(supervised())
    features = setup.network.input_of(setup.parameters, setup.x, 2).copy()
    whole, expected = setup.gradients()
    setup.network.forward(setup.parameters, features, 2, True, LABELS)
    assert setup.network.classifier.loss.objective == whole
    given = setup.parameters.like()

    def on_gradient(name, row, values):
        given[name][row] = values
    setup.network.backward([], on_gradient, last=2)
    for name in given.views:
        alone = name.startswith("classifier/")
        assert np.array_equal(given[name], expected[name] if alone else 0 * expected[name])


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4, 1e30])
def test_scores_of_any_magnitude_give_a_finite_objective_and_gradient(loss, scale):
    setup = Setup(supervised(loss=loss, l2=0.0, standardise=False, dtype="float32"))
    for name in ("weights", "bias"):
        setup.parameters[f"classifier/{name}"][...] *= scale
    with np.errstate(over="raise", invalid="raise"):
        value, gradient = setup.gradients()
    assert np.isfinite(value) and np.isfinite(gradient.vector).all()
    found = probabilities(setup.config.classifier, np.array([[scale], [0.0], [-scale]]))
    assert np.isfinite(found).all() and found[0] >= found[1] >= found[2]


def test_zeros_hold_every_class_for_equally_likely():
    for loss, expected in (("logistic", CLASSES * np.log(2)), ("softmax", np.log(CLASSES))):
        setup = Setup(supervised(loss=loss))
        for name in ("weights", "bias"):
            setup.parameters[f"classifier/{name}"][...] = 0
        assert setup.objective() == pytest.approx(expected, rel=1e-14)


def test_balanced_classes_count_the_same_together():
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    weights = balanced(labels, 4)
    assert balanced(labels, 3)[labels].sum() == pytest.approx(10) and weights[3] == 0
    assert [weights[labels][labels == c].sum() for c in range(3)] == pytest.approx([2.5] * 3)


# ---- any grid, any parts -------------------------------------------------------------------------

def on_grid(config, grid):
    """Objective, scores and gradients by position, of a network on a grid of blocks."""
    def program(communicator):
        setup = Setup(config, grid, communicator)
        value, gradient = setup.gradients()
        parts = {}
        for name, (plan, owned, _) in setup.network.block.sites.items():
            if owned.size:
                parts[name] = owned, np.concatenate([plan.unpack_row(gradient[name], j)
                                                     for j in range(plan.tile_rows)])
        scores = setup.network.scores(setup.parameters, setup.x).copy()
        return value, scores, parts, setup.network.layout.stored_shapes
    blocks = run_blocks(grid.size, program)
    shapes, found = blocks[0][3], {}
    for value, scores, parts, _ in blocks:
        assert value == blocks[0][0] and np.array_equal(scores, blocks[0][1])  # the same bits
        for name, (owned, values) in parts.items():
            whole = found.setdefault(name, np.full(shapes[name], np.nan))
            assert np.isnan(whole[slice(*owned.rows), slice(*owned.cols)]).all()  # owned once
            whole[slice(*owned.rows), slice(*owned.cols)] = values
    for kind in ("weights", "bias"):
        names = sorted(name for name in found if name.startswith(f"classifier/{kind}"))
        found[kind] = np.concatenate([found.pop(name) for name in names], axis=-1)
    return blocks[0][0], blocks[0][1], found


@pytest.mark.parametrize("stages", STAGES)
def test_any_grid_and_any_parts_equal_one_block(stages):
    value, scores, gradients = on_grid(supervised(stages), Grid(1, 1))
    for grid, parts in ((Grid(2, 2), 1), (Grid(1, 3), 3), (Grid(2, 3), 2), (Grid(3, 1), 2),
                        (Grid(1, 2), 7), (Grid(7, 1), 1), (Grid(2, 5), 3)):
        found = on_grid(supervised(stages, parts), grid)
        assert found[0] == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(found[1], scores, rtol=0, atol=1e-11 * abs(scores).max())
        assert found[2].keys() == gradients.keys()
        for name, values in gradients.items():
            assert np.isfinite(values).all()
            np.testing.assert_allclose(found[2][name], values, rtol=0,
                                       atol=1e-11 * abs(values).max(), err_msg=f"{name} {grid}")


def test_classes_are_cut_so_that_each_column_of_blocks_has_its_own():
    layout = Layout(supervised(parts=3), Grid(2, 3))
    held = [[name for name, site in layout.block(rank).sites.items()
             if name.startswith("classifier/w") and site.owned.size] for rank in range(6)]
    assert held == [[f"classifier/weights{number}"] for number in (1, 2, 3)] * 2
    whole = layout.stored_shapes["classifier/weights1"][:2]
    rows = [layout.block(rank).sites["classifier/weights1"].owned.shape for rank in (0, 3)]
    assert sum(shape[0] for shape in rows) == whole[0]
    assert all(shape[1] == whole[1] for shape in rows)


# ---- against another program ---------------------------------------------------------------------

@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_the_optimum_is_that_of_scikit_learn(loss):
    linear = pytest.importorskip("sklearn.linear_model",
                                 reason="pip install scikit-learn (extra: test)")
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 200)
    centres = rng.standard_normal((4, 2, 3, 2))
    features = centres[labels].transpose(1, 2, 3, 0) + 1.5 * rng.standard_normal((2, 3, 2, 200))
    l2 = 0.01
    config = dataclasses.replace(
        supervised(loss=loss, classes=4, l2=l2, standardise=False),
        stages=(StageConfig(receptive_field=1, maps=2, pooling=1, lcn=0),),
        data=DataConfig(size=2, channels=1))
    config = dataclasses.replace(config, stages=(
        StageConfig(receptive_field=1, maps=6, pooling=1, lcn=0),))
    network = Network(Layout(config))  # 2 x 2 positions with 6 maps: 24 numbers, some of them 0
    x = np.zeros((2, 2, 6, 200))
    x[:, :, :3] = features.transpose(0, 2, 1, 3)
    parameters = network.parameters()

    def step(rate):
        network.forward(parameters, x, 1, True, labels)

        def descend(name, row, gradient):
            parameters[name][row] -= rate * gradient
        network.backward([], descend, last=1)
        return network.classifier.loss.objective
    for _ in range(3000):
        ours = step(0.5)
    flat = x.reshape(24, 200).T
    model = linear.LogisticRegression(C=1 / (l2 * 200), tol=1e-10, max_iter=10000)
    targets = [labels == c for c in range(4)] if loss == "logistic" else [labels]
    theirs = 0.0
    for target in targets:
        model.fit(flat, target)
        chance = model.predict_proba(flat)[np.arange(200), target.astype(int)]
        theirs += -np.log(chance).mean() + 0.5 * l2 * np.square(model.coef_).sum()
    assert ours == pytest.approx(theirs, rel=1e-4)


# ---- phases, and what is refused -----------------------------------------------------------------

def test_first_it_learns_alone_then_the_whole_network():
    config = supervised(steps=2, batch=4, rate=0.5)
    alone, joint = phases(config)
    assert (alone.stage, alone.first, alone.end, alone.batch, alone.rate) == (2, 0, 2, 4, 0.5)
    assert (joint.stage, joint.first, joint.end, joint.batch) == (None, 2, 3, IMAGES)
    assert list(joint.positions(2)) == list(range(8, 8 + IMAGES))


def test_an_unknown_number_of_classes_is_said():
    with pytest.raises(InputError, match="classifier.classes = 0"):
        Layout(supervised(classes=0))
