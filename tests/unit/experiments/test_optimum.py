"""Numerical optima: climbs on a sphere, gradients down to the pixels, many neurons at once."""
import numpy as np
import pytest

from hpclcae.checkpoint.trained import Model
from hpclcae.experiments import optimum
from hpclcae.experiments.scan import Neuron
from hpclcae.utils.errors import InputError
from tests.support.gradient_check import directional_error
from tests.support.tiny_run import SIZE, write_run

RNG = np.random.default_rng(0)
NEURONS = [Neuron(2, (0, 1, 1)), Neuron(1, (2, 3, 0)), Neuron(2, (1, 1, 0)), Neuron(1, (0, 0, 2))]


@pytest.fixture(scope="module", params=[1, 3])
def model(tmp_path_factory, request):
    return Model.load(write_run(tmp_path_factory.mktemp("optimum"), channels=request.param))


def test_a_climb_finds_the_largest_eigenvector():
    a = RNG.standard_normal((6, 6))
    a = a @ a.T
    values, vectors = np.linalg.eigh(a)

    def value(x, which):
        assert len(x) == len(which)
        return np.einsum("ni,ij,nj->n", x, a, x), 2 * x @ a
    x, reached = optimum.climb(value, RNG.standard_normal((5, 6)), 2.0, 200)
    assert np.allclose(np.sqrt((x ** 2).mean(axis=1)), 2)
    assert np.allclose(reached, values[-1] * 24, rtol=1e-4)
    assert np.allclose(np.abs(x @ vectors[:, -1]), 2 * np.sqrt(6), rtol=1e-3)


def test_a_climb_never_goes_down_and_stops_where_nothing_helps():
    asked = []

    def value(x, which):
        asked.append(len(which))
        return -np.abs(x[:, 0]), -np.sign(x) * [1, 0]
    start = np.array([[1.0, 2.0], [0.0, 1.0]])
    x, reached = optimum.climb(value, start, 1.0, 60)
    assert reached[0] > -np.sqrt(2 / 5) and reached[1] == 0
    assert np.allclose(x[1], [0, np.sqrt(2)]) and len(asked) < 50
    assert np.array_equal(start, [[1, 2], [0, 1]])


def test_the_gradient_goes_through_every_layer_and_the_preprocessing(model):
    assert model.network.dtype == np.float64
    pixels = RNG.uniform(0, 255, (4, SIZE, SIZE, model.config.data.channels))
    for stage in (1, 2):
        where = np.array([(0, 1, 1), (1, 0, 0), (2, 2, 1), (1, 1, 1)])
        response, gradient = model.response_gradient(pixels, stage, where)

        def value():
            return float(model.response_gradient(pixels, stage, where)[0].sum())
        answers = model.responses(model.prepare(pixels))[stage - 1]
        assert np.array_equal(response, answers[(*where.T, np.arange(4))])
        assert directional_error(value, pixels, gradient, step=1e-5) < 1e-6


def test_optima_are_bounded_pictures_that_excite_their_neurons(model):
    found = optimum.find(model, NEURONS, starts=3, iterations=15)
    deviation = found.pixels - optimum.GREY
    assert np.allclose(np.sqrt((deviation ** 2).mean(axis=(1, 2, 3))), optimum.CONTRAST, rtol=1e-3)
    assert (np.diff(found.response, axis=1) <= 0).all() and (np.abs(found.alike) <= 1 + 1e-9).all()
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (400, *deviation.shape[1:])).astype(np.uint8)
    stages = [y.copy() for y in model.responses(model.prepare(noise))]
    for neuron, best, shown in zip(NEURONS, found.response[:, 0], found.shown):
        others = stages[neuron.stage - 1][neuron.where]
        assert best > others.max() and shown > others.max()
    assert found.pictures().dtype == np.uint8


def test_a_neuron_has_the_same_optimum_whoever_climbs_beside_it(model):
    together = optimum.find(model, NEURONS, starts=2, iterations=6)
    alone = [optimum.find(model, [neuron], starts=2, iterations=6, batch=1) for neuron in NEURONS]
    for number, each in enumerate(alone):
        assert np.allclose(each.pixels[0], together.pixels[number], rtol=0, atol=1e-3)
        assert np.allclose(each.response[0], together.response[number])
    assert np.isnan(optimum.find(model, NEURONS[:1], starts=1, iterations=2).alike).all()


def test_a_response_that_is_not_finite_is_a_line(model):
    broken = Model(model.config, model.network, model.network.parameters(), model.preprocessor, 1,
                   model.path)
    broken.parameters.vector[:] = np.nan
    with pytest.raises(InputError, match="not finite: training diverged"):
        optimum.find(broken, NEURONS[:1], starts=1, iterations=1)
