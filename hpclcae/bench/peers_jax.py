"""JAX's versions of a locally connected autoencoder: its own primitive, and loops over positions.

The last one has its gradients written by hand, which is this package's way of going about it
(without tiles): it shows how much of the ratio is the algorithm's and how much the library's.
"""
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from hpclcae.bench.peers import STEPS, Outputs, Peer, Problem
from hpclcae.utils.errors import require

# Read when JAX is imported: the processor, and one thread of it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS",
                      "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
jax: Any = require("jax", "bench", "the comparison with JAX")
jnp, lax = jax.numpy, jax.lax


class OverPositions:
    """A compiled loop over positions, each of which cuts out its window and multiplies.

    Gradients are by JAX. Images last; filters are (position, map, input).
    """
    name, slow = "jax map over positions", False

    def __init__(self, problem: Problem) -> None:
        self.problem, self.n, self.r = problem, problem.positions, problem.field
        self.inputs = self.r ** 2 * problem.maps_in
        self.window = self.r, self.r, problem.maps_in, problem.images
        self.arrays = (self._images(problem.x), self._filters(problem.encoder),
                       self._filters(problem.decoder), self._images(problem.dz))
        self._forward = {
            "filter": jax.jit(lambda x, v, d, dz: self.encode(x, v)),
            "autoencoder": jax.jit(lambda x, v, d, dz: self.decode(self.encode(x, v), d) - x)}
        self._both = {step: jax.jit(self._gradients(step)) for step in STEPS}
        self._found: dict[str, Any] = {}

    def _gradients(self, step: str) -> Callable[..., dict[str, Any]]:
        def filter_step(x: Any, v: Any, d: Any, dz: Any) -> dict[str, Any]:
            z, back = jax.vjp(self.encode, x, v)
            dx, dv = back(dz)
            return {"z": z, "dx": dx, "d_encoder": dv}

        def autoencoder_step(x: Any, v: Any, d: Any, dz: Any) -> dict[str, Any]:
            z, encode_back = jax.vjp(self.encode, x, v)
            reconstruction, decode_back = jax.vjp(self.decode, z, d)
            residual = reconstruction - x
            dz_decoder, dd = decode_back(residual)
            dx, dv = encode_back(dz + dz_decoder)
            return {"z": z, "residual": residual, "dx": dx, "d_encoder": dv, "d_decoder": dd}
        return filter_step if step == "filter" else autoencoder_step

    def forward(self, step: str) -> object:
        """The forward pass."""
        return jax.block_until_ready(self._forward[step](*self.arrays))

    def both(self, step: str) -> None:
        """Forward and backward."""
        self._found = jax.block_until_ready(self._both[step](*self.arrays))

    def outputs(self, step: str) -> Outputs:
        """Back into the problem's layouts."""
        return {name: self._filters_back(np.asarray(a)) if name.startswith("d_")
                else self._images_back(np.asarray(a)) for name, a in self._found.items()}

    def encode(self, x: Any, filters: Any) -> Any:
        """z (row, col, map, image)."""
        z = lax.map(lambda one: one[1] @ self._cut(x, one[0]), (jnp.arange(self.n ** 2), filters))
        return z.reshape(self.problem.dz.shape)

    def decode(self, z: Any, filters: Any) -> Any:
        """Reconstruction (row, col, map, image)."""
        def add(out: Any, one: Any) -> tuple[Any, None]:
            position, filter_, code = one
            return self._added(out, position, filter_.T @ code), None
        codes = z.reshape(self.n ** 2, -1, self.problem.images)
        empty = jnp.zeros(self.problem.x.shape, z.dtype)
        return lax.scan(add, empty, (jnp.arange(self.n ** 2), filters, codes))[0]

    def _cut(self, x: Any, position: Any) -> Any:
        at = position // self.n, position % self.n, 0, 0
        return lax.dynamic_slice(x, at, self.window).reshape(self.inputs, -1)

    def _added(self, out: Any, position: Any, patch: Any) -> Any:
        at = position // self.n, position % self.n, 0, 0
        return lax.dynamic_update_slice(out, lax.dynamic_slice(out, at, self.window)
                                        + patch.reshape(self.window), at)

    def _images(self, a: np.ndarray) -> Any:
        return jnp.asarray(a)

    def _images_back(self, a: np.ndarray) -> np.ndarray:
        return a

    def _filters(self, a: np.ndarray) -> Any:
        split = a.reshape(self.n ** 2, self.inputs, self.problem.maps)
        return jnp.asarray(split.transpose(0, 2, 1))

    def _filters_back(self, a: np.ndarray) -> np.ndarray:
        return a.transpose(0, 2, 1).reshape(self.problem.encoder.shape)


class OverPositionsByHand(OverPositions):
    """The same loop with gradients written by hand.

    A visit makes a position's dW and its part of dX.
    """
    name = "jax, gradients by hand"

    def __init__(self, problem: Problem) -> None:
        plain_encode, plain_decode = super().encode, super().decode

        def encode_back(saved: Any, dz: Any) -> Any:
            x, filters = saved

            def visit(dx: Any, one: Any) -> Any:
                position, filter_, d_code = one
                d_filter = d_code @ self._cut(x, position).T
                return self._added(dx, position, filter_.T @ d_code), d_filter
            return lax.scan(visit, jnp.zeros_like(x), self._by_position(filters, dz))

        def decode_back(saved: Any, d_out: Any) -> Any:
            z, filters = saved

            def visit(_: None, one: Any) -> Any:
                position, filter_, code = one
                patch = self._cut(d_out, position)
                return None, (filter_ @ patch, code @ patch.T)
            dz, d_filters = lax.scan(visit, None, self._by_position(filters, z))[1]
            return dz.reshape(z.shape), d_filters
        self._encode, self._decode = jax.custom_vjp(plain_encode), jax.custom_vjp(plain_decode)
        self._encode.defvjp(lambda x, v: (plain_encode(x, v), (x, v)), encode_back)
        self._decode.defvjp(lambda z, d: (plain_decode(z, d), (z, d)), decode_back)
        super().__init__(problem)

    def encode(self, x: Any, filters: Any) -> Any:
        """z (row, col, map, image)."""
        return self._encode(x, filters)

    def decode(self, z: Any, filters: Any) -> Any:
        """Reconstruction (row, col, map, image)."""
        return self._decode(z, filters)

    def _by_position(self, filters: Any, code: Any) -> tuple[Any, Any, Any]:
        return jnp.arange(self.n ** 2), filters, code.reshape(self.n ** 2, -1, self.problem.images)


class LocalConvolution(OverPositions):
    """JAX's own primitive, `conv_general_dilated_local`.

    Images first, decoding by its transpose.
    """
    name, slow = "jax conv_general_dilated_local", True

    def encode(self, x: Any, filters: Any) -> Any:
        """z (image, map, row, col)."""
        return lax.conv_general_dilated_local(x, filters, (1, 1), "VALID", (self.r, self.r))

    def decode(self, z: Any, filters: Any) -> Any:
        """Reconstruction (image, map, row, col)."""
        shape = jax.ShapeDtypeStruct(
            tuple(self.problem.x.shape[axis] for axis in (3, 2, 0, 1)), z.dtype)
        return jax.linear_transpose(lambda x: self.encode(x, filters), shape)(z)[0]

    def _images(self, a: np.ndarray) -> Any:
        return jnp.asarray(a.transpose(3, 2, 0, 1))

    def _images_back(self, a: np.ndarray) -> np.ndarray:
        return a.transpose(2, 3, 1, 0)

    # (map, input, row, col) with input = (map in, krow, kcol)
    def _filters(self, a: np.ndarray) -> Any:
        shape = self.problem.maps, self.inputs, self.n, self.n
        return jnp.asarray(a.transpose(5, 4, 2, 3, 0, 1).reshape(shape))

    def _filters_back(self, a: np.ndarray) -> np.ndarray:
        split = a.reshape(self.problem.maps, self.problem.maps_in, self.r, self.r, self.n, self.n)
        return split.transpose(4, 5, 2, 3, 1, 0)


PEERS: list[type[Peer]] = [LocalConvolution, OverPositions, OverPositionsByHand]
