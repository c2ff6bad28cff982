"""PyTorch's versions of a locally connected autoencoder, the one that runs fastest at the end.

The first is what one writes first. The last one is a port of this package's own layout (strips, in
which every window is a view) with hand-written gradients: it shows how much of the ratio is the
algorithm's and how much the library's.
"""
import os
from typing import Any

import numpy as np

from hpclcae.bench.peers import Outputs, Peer, Problem
from hpclcae.utils.errors import require

torch: Any = require("torch", "bench", "the comparison with PyTorch")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


class Autograd:
    """What versions that leave the gradients to autograd share.

    Images are last unless a version says otherwise. Filters are (position, map, input) with
    input = (krow, kcol, map in).
    """
    name, slow = "", False
    image_axes = (0, 1, 2, 3)  # of x and z within (row, col, map, image)

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.r, self.n, self.maps = problem.field, problem.positions, problem.maps
        self.inputs = self.r ** 2 * problem.maps_in
        self.x, self.dz = (self._images(a) for a in (problem.x, problem.dz))
        self.encoder, self.decoder = (self._filters(a) for a in (problem.encoder, problem.decoder))
        self.target = self.x.detach()
        self.found: dict[str, Any] = {}

    def encode(self, x: Any, filters: Any) -> Any:
        """Responses z."""
        raise NotImplementedError

    def decode(self, z: Any, filters: Any) -> Any:
        """Reconstruction."""
        raise NotImplementedError

    def forward(self, step: str) -> object:
        """The forward pass, without a graph."""
        with torch.no_grad():
            z = self.encode(self.x, self.encoder)
            return z if step == "filter" else self.decode(z, self.decoder) - self.target

    def both(self, step: str) -> None:
        """Forward with a graph, then backward through it."""
        self.x.grad = self.encoder.grad = self.decoder.grad = None
        z = self.encode(self.x, self.encoder)
        self.found = {"z": z.detach()}
        if step == "filter":
            z.backward(self.dz)
        else:
            residual = self.decode(z, self.decoder) - self.target
            self.found["residual"] = residual.detach()
            torch.autograd.backward([residual, z], [residual.detach(), self.dz])
            self.found["d_decoder"] = self.decoder.grad
        self.found |= {"dx": self.x.grad, "d_encoder": self.encoder.grad}

    def outputs(self, step: str) -> Outputs:
        """Back into the problem's layouts."""
        inverse = np.argsort(self.image_axes)
        return {name: self._filters_back(a) if name.startswith("d_")
                else a.reshape(self._shape(name)).numpy().transpose(inverse)
                for name, a in self.found.items()}

    def _shape(self, name: str) -> tuple[int, ...]:
        whole = self.problem.dz.shape if name == "z" else self.problem.x.shape
        return tuple(whole[axis] for axis in self.image_axes)

    def _images(self, a: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(a.transpose(self.image_axes))).requires_grad_()

    def _filters(self, a: np.ndarray) -> Any:
        whole = a.reshape(self.n ** 2, self.inputs, self.maps).transpose(0, 2, 1)
        return torch.from_numpy(np.ascontiguousarray(whole)).requires_grad_()

    def _filters_back(self, a: Any) -> np.ndarray:
        return a.detach().numpy().transpose(0, 2, 1).reshape(self.problem.encoder.shape)


class UnfoldEinsum(Autograd):
    """The textbook's: images first, all patches by `unfold`, one einsum, `fold` to decode."""
    name = "torch unfold + einsum"
    image_axes = (3, 2, 0, 1)

    def encode(self, x: Any, filters: Any) -> Any:
        """z (image, map, row, col)."""
        patches = torch.nn.functional.unfold(x, self.r)
        return torch.einsum("bkl,lmk->bml", patches, filters).reshape(-1, self.maps, self.n, self.n)

    def decode(self, z: Any, filters: Any) -> Any:
        """Reconstruction (image, map, row, col)."""
        patches = torch.einsum("bml,lmk->bkl", z.flatten(2), filters)
        return torch.nn.functional.fold(patches, self.target.shape[2:], self.r)

    def _filters(self, a: np.ndarray) -> Any:  # unfold orders the inputs (map in, krow, kcol)
        whole = a.reshape(self.n ** 2, self.r ** 2, -1, self.maps).transpose(0, 3, 2, 1)
        flat = np.ascontiguousarray(whole).reshape(self.n ** 2, self.maps, -1)
        return torch.from_numpy(flat).requires_grad_()

    def _filters_back(self, a: Any) -> np.ndarray:
        whole = a.numpy().reshape(self.n ** 2, self.maps, -1, self.r ** 2)
        return whole.transpose(0, 3, 2, 1).reshape(self.problem.encoder.shape)


class UnfoldBmm(Autograd):
    """Images last: patches as a copied `unfold` view, one `bmm` over all positions."""
    name = "torch unfold + bmm"

    def encode(self, x: Any, filters: Any) -> Any:
        """z (position, map, image)."""
        windows = x.unfold(0, self.r, 1).unfold(1, self.r, 1)  # row, col, map in, image, krow, kcol
        return torch.bmm(filters,
                         windows.permute(0, 1, 4, 5, 2, 3).reshape(self.n ** 2, self.inputs, -1))

    def decode(self, z: Any, filters: Any) -> Any:
        """Reconstruction (row, col, map, image)."""
        patches = torch.bmm(filters.transpose(1, 2), z)
        windows = patches.view(self.n, self.n, self.r, self.r,
                               *self.target.shape[2:]).permute(0, 1, 4, 5, 2, 3)
        rows, cols, maps, images = self.target.shape
        part = torch.ops.aten.unfold_backward(
            windows, (self.n, cols, maps, images, self.r), 1, self.r, 1)
        return torch.ops.aten.unfold_backward(part, (rows, cols, maps, images), 0, self.r, 1)

    def _images(self, a: np.ndarray) -> Any:
        if a is self.problem.dz:
            return torch.from_numpy(a.reshape(self.n ** 2, self.maps, -1))
        return super()._images(a)


class RowsBmm(UnfoldBmm):
    """The same row of positions by row, so that patches stay in cache.

    Fastest that we found with autograd.
    """
    name = "torch unfold + bmm by rows"

    def encode(self, x: Any, filters: Any) -> Any:
        """z (position, map, image)."""
        rows = []
        for y, row_filters in enumerate(filters.split(self.n)):
            # col, krow, map in, image, kcol
            windows = x[y:y + self.r].transpose(0, 1).unfold(0, self.r, 1)
            patches = windows.permute(0, 4, 1, 2, 3).reshape(self.n, self.inputs, -1)
            rows.append(torch.bmm(row_filters, patches))
        return torch.cat(rows)

    def decode(self, z: Any, filters: Any) -> Any:
        """Reconstruction (row, col, map, image)."""
        out = torch.zeros_like(self.target)
        strip = self.target.shape[1], self.r, *self.target.shape[2:]
        for y, (row_filters, code) in enumerate(zip(filters.split(self.n), z.split(self.n))):
            patches = torch.bmm(row_filters.transpose(1, 2), code)
            windows = patches.view(self.n, self.r, *strip[1:]).permute(0, 2, 3, 4, 1)
            folded = torch.ops.aten.unfold_backward(windows, strip, 0, self.r, 1)
            out[y:y + self.r] += folded.transpose(0, 1)
        return out

    def _filters(self, a: np.ndarray) -> Any:  # input = (kcol, krow, map in)
        return super()._filters(np.ascontiguousarray(a.transpose(0, 1, 3, 2, 4, 5)))

    def _filters_back(self, a: Any) -> np.ndarray:
        return super()._filters_back(a).transpose(0, 1, 3, 2, 4, 5)


class Strips(RowsBmm):
    """Our layout in PyTorch, tile 1: strips whose windows are views, gradients by hand.

    Nothing is allocated twice.
    """
    name = "torch, port of our strips"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.x, self.encoder, self.decoder = (a.detach()
                                              for a in (self.x, self.encoder, self.decoder))
        self.z = torch.empty_like(self.dz)
        self.dcode = torch.empty_like(self.dz)
        self.residual, self.dx = torch.empty_like(self.x), torch.empty_like(self.x)
        self.d_encoder = torch.empty_like(self.encoder)
        self.d_decoder = torch.empty_like(self.decoder)

    def forward(self, step: str) -> object:
        """Encode, or encode and decode."""
        for y in range(self.n):
            torch.bmm(self._row(self.encoder, y), self._windows(self.x, y),
                      out=self._row(self.z, y))
        if step == "autoencoder":
            torch.neg(self.x, out=self.residual)
            self._scatter(self.decoder, self.z, self.residual)
        return self.z

    def both(self, step: str) -> None:
        """Forward, then the gradients in one sweep over rows."""
        self.forward(step)
        self.dcode.copy_(self.dz)
        for y in range(self.n):
            code, dcode = self._row(self.z, y), self._row(self.dcode, y)
            if step == "autoencoder":
                windows = self._windows(self.residual, y)
                dcode.baddbmm_(self._row(self.decoder, y), windows)
                torch.bmm(code, windows.transpose(1, 2), out=self._row(self.d_decoder, y))
            torch.bmm(dcode, self._windows(self.x, y).transpose(1, 2),
                      out=self._row(self.d_encoder, y))
        self._scatter(self.encoder, self.dcode, self.dx.zero_())
        self.found = {"z": self.z, "dx": self.dx, "d_encoder": self.d_encoder}
        if step == "autoencoder":
            self.found |= {"residual": self.residual, "d_decoder": self.d_decoder}

    def _row(self, a: Any, y: int) -> Any:
        return a[y * self.n:(y + 1) * self.n]

    def _windows(self, x: Any, y: int) -> Any:
        """All windows of a row of positions: overlapping views (col, input, image) of one strip."""
        strip = x[y:y + self.r].transpose(0, 1).contiguous()
        images = x.shape[-1]
        col = strip.stride(0)
        return strip.as_strided((self.n, self.inputs, images), (col, images, 1))

    def _scatter(self, filters: Any, code: Any, out: Any) -> None:
        """Add filters' code to `out`; windows overlap, so position after position."""
        strip = out.new_empty(out.shape[1], self.r, *out.shape[2:])
        for y in range(self.n):
            strip.zero_()
            for i in range(self.n):
                window = strip[i:i + self.r].view(self.inputs, -1)
                window.addmm_(filters[y * self.n + i].T, code[y * self.n + i])
            out[y:y + self.r] += strip.transpose(0, 1)


PEERS: list[type[Peer]] = [UnfoldEinsum, UnfoldBmm, RowsBmm, Strips]
