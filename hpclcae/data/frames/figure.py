"""Pictures of anything that has a colour at every vertex: bodies (bodies.py), cats (cats.py)."""
from dataclasses import dataclass

import numpy as np

from hpclcae.data.frames.head_look import illuminate
from hpclcae.data.frames.head_mesh import vertex_normals
from hpclcae.data.frames.heads import averaged, rotation
from hpclcae.data.frames.rasterize import rasterize

SAMPLES = 2  # along each edge of a pixel


@dataclass(frozen=True)
class Figure:
    """A thing that can be drawn; its middle, which it turns about, is at the origin.

    Lengths are in heights of that part of it which a frame's `--face-size` is about.
    """
    vertices: np.ndarray   # float32 (vertex, 3): x to the right, y up, z to the viewer
    triangles: np.ndarray  # int (triangle, 3): vertices, anticlockwise from outside
    colours: np.ndarray    # float32 (vertex, 3): red, green, blue from 0 to 1

    def render(self, size: int, filled: float, yaw: float, pitch: float, roll: float,
               light: tuple[float, float, float]) -> np.ndarray:
        """Draw it from the front, or turned by so many degrees (heads.rotation).

        Parameters
        ----------
        size : int
            Rows and cols, pixels.
        filled : float
            Share of the rows that one height takes.
        light : (x, y, z)
            Where it comes from: right, up, towards the viewer.

        Returns
        -------
        uint8 array (row, col, 4)
            Red, green, blue, alpha; alpha is 0 outside.
        """
        turn = rotation(yaw, pitch, roll)
        view = self.vertices @ turn.T
        fine = size * SAMPLES
        points = np.stack([fine / 2 + filled * fine * view[:, 0],
                           fine / 2 - filled * fine * view[:, 1], view[:, 2]], 1)
        pixels, seen, weights = rasterize(points, self.triangles, fine)
        corners = self.triangles[seen]
        colour, normals = (np.einsum("pck,pc->pk", values[corners], weights)
                           for values in (self.colours,
                                          vertex_normals(self.vertices, self.triangles)))
        lit = illuminate(colour, np.full(len(colour), 0.04), normals @ turn.T,
                         np.ones(len(colour), np.float32), np.array(light, float))
        return averaged(pixels, lit, size, SAMPLES)
