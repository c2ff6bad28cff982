"""Random people, and pictures of their heads from any side.

A person is the neutral head of the mesh plus a random sum of shape targets, and a `Look`. A picture
is made in two steps: `rasterize` finds which point of the head each pixel sees, then `paint` and
`illuminate` colour all of them.
"""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae.data.frames.head_look import (Look, curtain_hangs, hair_grown, illuminate, paint,
                                           random_look)
from hpclcae.data.frames.head_mesh import CURTAIN, EYE, SKIN, load_mesh, vertex_normals
from hpclcae.data.frames.rasterize import rasterize

BEHIND_EYES = 0.28  # head heights from the eyes to what the head turns about
FILLS = 0.6         # share of the rows between chin and crown, at zoom 1
DISTANCE = 4.0      # of the camera, head heights
FINE_BELOW = 96     # pictures smaller than this get 3 x 3 samples a pixel, others 2 x 2
DETAIL_SHARE, DETAIL_WEIGHT = 0.2, 0.6  # so many of the detail targets, up to this much of each
#: Of these a third.
STRONG = ("mouth-open", "jaw-drop", "closure", "slit", "opened-up", "parling", "part-later",
          "eversion")
OVER_EARS = (1.1, 1.0, 1.02)  # long hair is this much wider than the mesh has it
SOFT = 0.08         # the hair reaches its thickness this far behind its edge


@dataclass(frozen=True)
class Person:
    """A head that can be drawn, in heights of the head from its middle, which it turns about."""
    vertices: np.ndarray  # float32 (vertex, 3)
    normals: np.ndarray   # float32 (vertex, 3), unit
    look: Look


class HeadModel:
    """Draws people; made from the folder that holds the unpacked package of the head mesh.

    Raises
    ------
    InputError
        The folder holds no head mesh, or it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.mesh = load_mesh(Path(folder))

    def person(self, rng: np.random.Generator) -> Person:
        """Return a random person: sex, age, origin, every feature, hair and colours."""
        mesh = self.mesh
        origins = dict(zip(("african", "asian", "caucasian"), rng.dirichlet([0.4] * 3)))
        male = rng.beta(0.3, 0.3)
        old, child = rng.beta(0.6, 1.4), rng.uniform(0, 0.6) * (rng.random() < 0.1)
        sexes = {"male": male, "female": 1 - male}
        ages = {"child": child, "old": old * (1 - child), "young": (1 - old) * (1 - child)}
        weights = np.zeros(len(mesh.names), np.float32)
        for target, name in enumerate(mesh.names):
            origin, sex, age = [*name.split("-"), "", ""][:3]
            if sex not in sexes:
                most = DETAIL_WEIGHT / 3 if any(word in name for word in STRONG) else DETAIL_WEIGHT
                weights[target] = (rng.random() < DETAIL_SHARE) * rng.uniform(0, most)
            elif age in ages:
                # "universal" is for all origins
                weights[target] = origins.get(origin, 1.0) * sexes[sex] * ages[age]
        shape = mesh.rest + np.tensordot(weights, mesh.targets, 1)
        return self._dressed(shape, random_look(rng, male, old, origins))

    def _dressed(self, shape: np.ndarray, look: Look) -> Person:
        """Bring a head to its place and size, and let the hair stand on its skull."""
        mesh = self.mesh
        crown, chin = shape[mesh.crown, 1], shape[mesh.chin, 1]
        middle = [0, (crown + chin) / 2, shape[mesh.eyes, 2].mean() - BEHIND_EYES * (crown - chin)]
        shape = (shape - middle) / (crown - chin)
        outward = vertex_normals(shape, mesh.triangles[np.isin(mesh.part, (SKIN, EYE))])
        skull, curtain = np.zeros((2, len(shape)), bool)
        skull[mesh.triangles[mesh.part == SKIN]] = True
        curtain[mesh.triangles[mesh.part == CURTAIN]] = True
        grown = hair_grown(mesh.rest, mesh.masks, look, SOFT)
        shape = shape + outward * (look.thickness * skull * grown)[:, None]
        shape[curtain] *= OVER_EARS
        return Person(shape.astype(np.float32),
                      vertex_normals(shape, mesh.triangles[mesh.outside]), look)

    def render(self, person: Person, size: int, yaw: float = 0.0, pitch: float = 0.0,
               roll: float = 0.0, zoom: float = 1.0,
               light: tuple[float, float, float] = (-0.4, 0.5, 0.8)) -> np.ndarray:
        """Draw a person's head, its middle in the middle of the picture.

        Parameters
        ----------
        person : Person
        size : int
            Rows and cols, pixels. At zoom 1 the head, chin to crown, fills 0.6 of the rows.
        yaw, pitch, roll : float
            Degrees: the nose turns to the right of the picture, and up; the head leans to the left
            of the picture.
        zoom : float
            2 draws everything twice as large.
        light : (x, y, z)
            Where the light comes from: right, up, towards the viewer. Its length does not matter.

        Returns
        -------
        uint8 array (row, col, 4)
            Red, green, blue, alpha; alpha is 0 outside the head.
        """
        mesh, look = self.mesh, person.look
        samples = 3 if size < FINE_BELOW else 2
        turn = rotation(yaw, pitch, roll)
        points = projected(person.vertices @ turn.T, size * samples, zoom)
        shown = slice(None) if look.curtain else mesh.part != CURTAIN
        triangles, part = mesh.triangles[shown], mesh.part[shown]

        def keep(index: np.ndarray, weights: np.ndarray) -> np.ndarray:
            opaque = part[index] != CURTAIN
            hair = np.flatnonzero(~opaque)
            opaque[hair] = curtain_hangs(_mix(mesh.rest, triangles[index[hair]], weights[hair]),
                                         look)
            return opaque

        pixels, seen, weights = rasterize(points, triangles, size * samples, keep)
        corners = triangles[seen]
        place, masks, normals = (_mix(values, corners, weights)
                                 for values in (mesh.rest, mesh.masks, person.normals))
        colour, gloss = paint(place, masks, part[seen], look)
        occlusion = np.maximum(_mix(mesh.occlusion[:, None], corners, weights)[:, 0],
                               0.6 * (part[seen] == EYE))
        lit = illuminate(colour, gloss, normals @ turn.T, occlusion, np.array(light, float))
        return averaged(pixels, lit, size, samples)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the matrix that turns the head: yaw first, then pitch, then roll.

    x is to the right, y up, z to the viewer.
    """
    cos, sin = np.cos(np.radians([yaw, pitch, roll])), np.sin(np.radians([yaw, pitch, roll]))
    about_y = np.array([[cos[0], 0, sin[0]], [0, 1, 0], [-sin[0], 0, cos[0]]])
    about_x = np.array([[1, 0, 0], [0, cos[1], sin[1]], [0, -sin[1], cos[1]]])
    about_z = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    return (about_z @ about_x @ about_y).astype(np.float32)


def projected(vertices: np.ndarray, size: int, zoom: float) -> np.ndarray:
    """Where a camera before a head sees its vertices (vertex, 3), as `rasterize` wants it.

    They are in head heights from the middle of the head. At zoom 1 it fills FILLS of `size` pixels.
    """
    scale = FILLS * zoom * size * DISTANCE / (DISTANCE - vertices[:, 2])
    return np.stack([size / 2 + scale * vertices[:, 0], size / 2 - scale * vertices[:, 1],
                     vertices[:, 2]], 1)


def _mix(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Interpolate (vertex, k) at pixels with corners and weights (pixel, 3); array (pixel, k)."""
    return np.einsum("pck,pc->pk", values[corners], weights)


def averaged(pixels: np.ndarray, lit: np.ndarray, size: int, samples: int) -> np.ndarray:
    """Average samples x samples points to a pixel: uint8 (row, col, 4)."""
    fine = np.zeros(((size * samples) ** 2, 4), np.float32)
    fine[pixels, :3], fine[pixels, 3] = lit, 1
    mean = fine.reshape(size, samples, size, samples, 4).mean((1, 3))
    # the colour of the covered part of the pixel alone
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-6)
    return np.round(np.clip(mean, 0, 1) * 255).astype(np.uint8)
