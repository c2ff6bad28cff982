"""A locally connected sigmoid autoencoder: the deep autoencoders that the paper compares with.

One layer, with windows and kernels of layers/local_filter.py and weights that are not shared::

    h = sigmoid(V' x + b)        xhat = D h + c        loss = 1/2 ||xhat - x||^2 / images

V and D are separate, b and c have a number for every output and input. A deep one is a stack of
layers that are trained one after the other, each on the codes of the one below. The paper says no
more of its autoencoders than their layers and that they are locally connected (notes/decisions.md).
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.config import UpdateConfig
from hpclcae.model.layers.local_filter import LocalFilter
from hpclcae.model.layers.unit_norm import Filters
from hpclcae.model.optimizers import OptimizerKernel
from hpclcae.model.workspace import Workspace

START = 0.5       # standard deviation of V' x and D h, about, for inputs of deviation 1
FIRST_MAPS = 8    # of the first layer; the top has as many as are asked for


@dataclass(frozen=True)
class LayerShape:
    """Side and maps of the input, side of a window, distance of windows, maps of the output."""
    side: int
    maps_in: int
    field: int
    stride: int
    maps: int

    @property
    def out(self) -> int:
        """Side of the output."""
        return (self.side - self.field) // self.stride + 1


def layer_shapes(size: int, channels: int, layers: int, top: int) -> list[LayerShape]:
    """Layers that lead from an image to one position with `top` maps.

    Sides shrink by about the same ratio from layer to layer, maps grow so; a window reaches as far
    as its neighbours leave room, so every input is seen.
    """
    sides = [max(1, round(size ** (1 - layer / layers))) for layer in range(layers + 1)]
    sides[0], maps_in, shapes = size, channels, []
    for layer, (side, out) in enumerate(zip(sides, sides[1:]), start=1):
        maps = top if layer == layers else round(
            FIRST_MAPS * (max(top, FIRST_MAPS) / FIRST_MAPS) ** ((layer - 1) / max(1, layers - 1)))
        stride = max(1, side // out)
        shapes.append(LayerShape(side, maps_in, side - (out - 1) * stride, stride, maps))
        maps_in = maps
    return shapes


class AutoencoderLayer:
    """One layer and its weights.

    Parameters
    ----------
    shape : LayerShape
    seed : int
        Of the weights.
    dtype : dtype

    Attributes
    ----------
    parameters : dict
        "encode" and "decode" in the kernel's layout (LocalFilter.shape), "hidden" (out row, out
        col, map) and "visible" (row, col, map in).
    """

    def __init__(self, shape: LayerShape, seed: int, dtype: DTypeLike = np.float32) -> None:
        self.shape = shape
        self.plan = LocalFilter(shape.side, shape.side, shape.maps_in, shape.maps, shape.field,
                                shape.stride, dtype=dtype)
        self.work = Workspace()
        plan, rng = self.plan, np.random.default_rng(seed)
        self.parameters = {
            "encode": np.zeros(plan.shape, plan.dtype), "decode": np.zeros(plan.shape, plan.dtype),
            "hidden": np.zeros((plan.out_rows, plan.out_cols, shape.maps), plan.dtype),
            "visible": np.zeros((shape.side, shape.side, shape.maps_in), plan.dtype)}
        # every input is decoded from about so many outputs
        overlap = max(1.0, (shape.field / shape.stride) ** 2) * shape.maps
        for name, fan in (("encode", plan.fan_in), ("decode", overlap)):
            for j in range(plan.tile_rows):
                (top, bottom), (left, right) = plan.positions(((j, j + 1), (0, plan.tile_cols)))
                filters = rng.standard_normal((bottom - top, right - left, shape.field, shape.field,
                                               shape.maps_in, shape.maps)) * START / np.sqrt(fan)
                plan.pack_row(filters, self.parameters[name], j)

    def encode(self, x: np.ndarray) -> np.ndarray:
        """The code (out row, out col, map, image) of inputs (row, col, map in, image)."""
        z = np.empty((self.plan.out_rows, self.plan.out_cols, self.plan.maps, x.shape[-1]),
                     self.plan.dtype)
        self.plan.encode(Filters(self.parameters["encode"]), x, z, self.work)
        z += self.parameters["hidden"][..., None]
        return sigmoid(z)

    def decode(self, h: np.ndarray) -> np.ndarray:
        """What a code stands for (row, col, map in, image): D h + c."""
        xhat = np.zeros((self.plan.rows, self.plan.cols, self.plan.maps_in, h.shape[-1]),
                        self.plan.dtype)
        xhat += self.parameters["visible"][..., None]
        self.plan.backward(Filters(self.parameters["decode"]), None, xhat, h, None, 0.0, h, xhat,
                           None, self.work)
        return xhat

    def loss(self, x: np.ndarray) -> float:
        """1/2 ||xhat - x||^2, mean over the images."""
        residual = self.decode(self.encode(x)) - x
        return float(np.vdot(residual, residual)) / (2 * x.shape[-1])

    def gradients(self, x: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """The loss, and its gradient with respect to every parameter.

        With r = (xhat - x) / images and dz = D' r h (1 - h)::

            dD = r h'    dc = sum r    dV = x dz'    db = sum dz
        """
        plan, images = self.plan, x.shape[-1]
        h = self.encode(x)
        residual = self.decode(h) - x
        loss = float(np.vdot(residual, residual)) / (2 * images)
        residual /= plan.dtype.type(images)
        dz = np.empty_like(h)
        plan.encode(Filters(self.parameters["decode"]), residual, dz, self.work)
        dz *= h
        dz *= 1 - h
        found = {"hidden": dz.sum(axis=-1), "visible": residual.sum(axis=-1)}
        for name, inputs, code in (("decode", residual, h), ("encode", x, dz)):
            gradient = found[name] = np.empty(plan.shape, plan.dtype)

            def take(_: str, row: int, part: np.ndarray, into: np.ndarray = gradient) -> None:
                into[row] = part
            plan.backward(Filters(self.parameters[name]), None, inputs, code, None, 0.0, code, None,
                          take, self.work)
        return loss, found


class Trainer:
    """Adam on the parameters of one layer."""

    def __init__(self, layer: AutoencoderLayer, rate: float) -> None:
        self.layer, self.rate, self.count = layer, rate, 0
        self.kernel = OptimizerKernel(UpdateConfig(rule="adam"), layer.plan.dtype)
        self.slots = {name: [np.zeros(array.size, array.dtype) for _ in self.kernel.slots]
                      for name, array in layer.parameters.items()}

    def step(self, x: np.ndarray, share: float = 1.0) -> float:
        """One step on inputs (row, col, map in, image); the rate times `share`. Returns the loss.
        """
        loss, gradients = self.layer.gradients(x)
        self.count += 1
        fan_in = self.layer.plan.fan_in
        for name, array in self.layer.parameters.items():
            self.kernel.apply(array.reshape(-1), gradients[name].reshape(-1), self.slots[name],
                              self.rate * share, fan_in, self.count)
        return loss


def codes(layers: Sequence[AutoencoderLayer], x: np.ndarray) -> list[np.ndarray]:
    """The code of every layer for inputs (row, col, map in, image) of the first."""
    found = []
    for layer in layers:
        x = layer.encode(x)
        found.append(x)
    return found


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), in place, without overflow."""
    np.multiply(z, 0.5, out=z)
    np.tanh(z, out=z)
    z += 1
    z *= 0.5
    return z
