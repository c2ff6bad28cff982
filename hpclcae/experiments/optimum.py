"""What a neuron would like best: the picture of given contrast with its strongest response.

Paper: x* = argmax f(x) subject to ||x||_2 = 1, by projected gradient with line search. Here x are
the pixels' deviations from grey, and the gradient goes through the whole network and what prepares
images. Many neurons climb at once, each from several starts: noise with the spectrum of
photographs. The response has many local maxima, so the best of the starts is a lower bound.

A step goes along the sphere by an angle: the trial is kept if the response grows, and the angle
with it; else it shrinks. The direction is steepest where photographs are white, in which pixels
count less the more their neighbours do the same (the gradient times the spectrum of photographs):
in plain pixels the way is several times longer and ends in speckles.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.experiments.invariance import require_finite
from hpclcae.experiments.ranks import Ranks, cut
from hpclcae.experiments.scan import Neuron, asked

GREY = 127.5
CONTRAST = 50.0       # standard deviation of the pixels, grey levels: the norm bound
FIRST_ANGLE = 0.5     # of a step, radians
GROWTH, SHRINKAGE = 1.5, 0.4
LARGEST_ANGLE = 1.5
SMALLEST_ANGLE = 1e-3  # a climb ends where no larger step helps
STARTS, ITERATIONS = 3, 40

#: pixels (image, ...), which climbs they belong to -> values (image,), gradients (image, ...)
Climbed = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Optima:
    """What was found, of some neurons."""
    pixels: np.ndarray     # float32 (neuron, row, col, channel), grey levels; some beyond 0 to 255
    response: np.ndarray   # float64 (neuron, start): at the end of each climb, highest first
    shown: np.ndarray      # float64 (neuron,): to the picture as it can be shown, whole levels
    alike: np.ndarray      # float64 (neuron,): |correlation| of the two best climbs; NaN: one start

    def pictures(self) -> np.ndarray:
        """As they can be shown, uint8 (neuron, row, col, channel)."""
        return as_picture(self.pixels)


def as_picture(pixels: np.ndarray) -> np.ndarray:
    """Whole grey levels from 0 to 255, uint8."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def find(model: Model, neurons: Sequence[Neuron], starts: int = STARTS,
         iterations: int = ITERATIONS, seed: int = 0, batch: int = 100,
         ranks: Ranks = Ranks()) -> Optima:
    """Find the optima of many neurons at once; processes share the climbs.

    Parameters
    ----------
    neurons : sequence of Neuron
        Of any stages.
    starts, iterations : int
        Climbs of each neuron, and steps of each climb.
    seed : int
        Of the noise; that of a neuron depends on nothing else.
    batch : int
        Climbs at a time: memory is that of a forward and a backward pass of so many images.

    Raises
    ------
    InputError
        A response is not finite.
    """
    data = model.config.data
    shape = data.size, data.size, data.channels
    spectrum = photograph_spectrum(data.size)
    parts = []
    for stage in sorted({neuron.stage for neuron in neurons}):
        climbs = [(number, start) for number, neuron in enumerate(neurons)
                  if neuron.stage == stage for start in range(starts)]
        parts += [climbs[part] for part in cut(len(climbs), batch, ranks.groups)]
    mine, ended = list(ranks.mine(parts)), []
    ticks = iter(ranks.progress(range(len(mine) * iterations), "optima", "steps"))
    for part in mine:
        where = np.array([neurons[number].where for number, _ in part])
        stage = neurons[part[0][0]].stage

        def value(x: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return model.response_gradient(GREY + x, stage, where[which])
        begin = np.stack([_noise(np.random.default_rng(
            [seed, stage, *neurons[number].where, start]), shape, spectrum)
            for number, start in part]).astype(model.network.dtype)
        found, reached = climb(value, begin, CONTRAST, iterations,
                               lambda gradient: _coloured(gradient, spectrum ** 2),
                               lambda: next(ticks, None))
        ended.append((found, reached))
    next(ticks, None)
    pixels = np.zeros((len(neurons), starts, *shape), np.float32)
    response = np.zeros((len(neurons), starts))
    for part, (found, reached) in zip(parts, ranks.everyones(ended)):
        for (number, start), image, height in zip(part, found, reached):
            pixels[number, start], response[number, start] = GREY + image, height
    require_finite(response)
    order = np.argsort(-response, axis=1)
    every = np.arange(len(neurons))
    best = pixels[every, order[:, 0]]
    alike = (_correlation(best, pixels[every, order[:, 1]]) if starts > 1
             else np.full(len(neurons), np.nan))
    return Optima(best, np.take_along_axis(response, order, axis=1),
                  responses_of(model, neurons, as_picture(best), batch), alike)


def climb(value: Climbed, x: np.ndarray, contrast: float, iterations: int,
          preconditioned: Callable[[np.ndarray], np.ndarray] = lambda gradient: gradient,
          tick: Callable[[], object] = lambda: None) -> tuple[np.ndarray, np.ndarray]:
    """Climb on the sphere of images with a root mean square of `contrast`, each by itself.

    Parameters
    ----------
    value : callable
        Of images and their numbers: values and gradients.
    x : (image, ...)
        Where the climbs begin; brought to the contrast.
    contrast : float
    iterations : int
        Evaluations of every climb, beside the first.
    preconditioned : callable
        A positive definite symmetric operation on gradients.
    tick : callable
        Called after each iteration.

    Returns
    -------
    x : (image, ...)
    reached : float64 (image,)
        The value there, never below that at the beginning.
    """
    axes = tuple(range(1, x.ndim))

    def to_all(numbers: np.ndarray) -> np.ndarray:
        return numbers.reshape(-1, *(1,) * len(axes)).astype(x.dtype)

    def rms(a: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(a, dtype=np.float64).mean(axis=axes))
    x = x * to_all(contrast / np.maximum(rms(x), 1e-12))
    angle = np.full(len(x), FIRST_ANGLE)
    height, slope = value(x, np.arange(len(x)))
    height, slope = height.astype(np.float64), slope.copy()
    for _ in range(iterations):
        tick()
        active = np.flatnonzero(angle > SMALLEST_ANGLE)
        if not active.size:
            continue
        here, way = x[active], preconditioned(slope[active])
        along = (here.astype(np.float64) * way).mean(axis=axes) / contrast ** 2
        way = way - here * to_all(along)
        size = rms(way)
        way *= to_all(contrast / np.maximum(size, 1e-30))
        trial = here * to_all(np.cos(angle[active])) + way * to_all(np.sin(angle[active]))
        trial *= to_all(contrast / rms(trial))  # rounding must not add up
        reached, steepness = value(trial, active)
        better = (reached > height[active]) & (size > 0)
        kept = active[better]
        x[kept], slope[kept], height[kept] = trial[better], steepness[better], reached[better]
        angle[active] = np.where(better, np.minimum(angle[active] * GROWTH, LARGEST_ANGLE),
                                 angle[active] * SHRINKAGE)
    return x, height


def responses_of(model: Model, neurons: Sequence[Neuron], pictures: np.ndarray,
                 batch: int = 100) -> np.ndarray:
    """The response of neuron i to picture i, uint8 (neuron, row, col, channel); float64."""
    return np.concatenate([asked(model, neurons[part])(pictures[part]).diagonal()
                           for part in cut(len(neurons), batch, 1)]).astype(np.float64)


def photograph_spectrum(size: int) -> np.ndarray:
    """Amplitudes of photographs, 1 / frequency, (row frequency, col frequency) as of rfft2."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    return 1 / np.maximum(frequency, 1 / size)


def _coloured(images: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """Multiply the spectra of images (image, row, col, channel)."""
    shape = images.shape[1:3]
    return np.fft.irfft2(np.fft.rfft2(images, axes=(1, 2)) * spectrum[..., None], s=shape,
                         axes=(1, 2)).astype(images.dtype)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], spectrum: np.ndarray) -> np.ndarray:
    """One image (row, col, channel) of noise with the spectrum of photographs, mostly grey."""
    light = rng.standard_normal((*shape[:2], 1)) + rng.standard_normal(shape) / 3
    image = _coloured(light[None], spectrum)[0]
    return image - image.mean()


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of the pixels of each pair of images (image, ...), without sign, float64 (image,).

    A pooled response does not tell a picture from its negative.
    """
    both = [image.reshape(len(image), -1) - image.mean(axis=tuple(range(1, image.ndim)))[:, None]
            for image in (first.astype(np.float64), second.astype(np.float64))]
    return np.abs((both[0] * both[1]).sum(axis=1)) / np.sqrt(
        np.square(both[0]).sum(axis=1) * np.square(both[1]).sum(axis=1))
