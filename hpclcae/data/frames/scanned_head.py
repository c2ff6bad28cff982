"""A real head, scanned with its colours: the one that the package menpo3d ships.

A mesh (OBJ), a photograph that is its texture, and landmarks, from which the size and place of the
head are taken. The light is that of the scan, part of the texture.
"""
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae.data.decode import Undecodable, decode
from hpclcae.data.frames.heads import BEHIND_EYES, FINE_BELOW, averaged, projected, rotation
from hpclcae.data.frames.rasterize import rasterize
from hpclcae.utils.reading import reading

FOLDER = "menpo3d"  # of the sources
MESH = "menpo3d/data/james.obj"
TEXTURE, LANDMARKS = "menpo3d/data/james.jpg", "menpo3d/data/james.ljson"
TEXTURE_SIDE = 1024  # pixels that are kept of it


@dataclass(frozen=True)
class ScannedHead:
    """A mesh in heights of the head from its middle, which it turns about."""
    vertices: np.ndarray     # float32 (vertex, 3): right, up, towards the viewer
    triangles: np.ndarray    # int64 (triangle, 3): vertices
    coordinates: np.ndarray  # float32 (triangle, 3, 2): col and row in the texture, shares of it
    texture: np.ndarray      # float32 (row, col, 3), 0 to 1

    @classmethod
    def find(cls, sources: Path) -> "ScannedHead | None":
        """Read the head from what hpclcae data fetch filled; None if it is not there.

        Raises
        ------
        InputError
            A file of it is damaged.
        """
        folder = sources / FOLDER
        if not (folder / MESH).is_file():
            return None
        with reading(f"the scanned head in {folder}", "the head of package menpo3d",
                     f"bring it again with 'hpclcae data fetch --only {FOLDER}'"):
            vertices, triangles, coordinates = _read_obj(folder / MESH)
            try:
                texture = decode(folder / TEXTURE).pixels
            except Undecodable as error:
                raise ValueError(f"{TEXTURE}: {error}") from error
            eyes, chin = _landmarks(folder / LANDMARKS)
        step = max(1, min(texture.shape[:2]) // TEXTURE_SIDE)
        height = 2 * (eyes[1] - chin[1])  # eyes lie halfway between crown and chin
        middle = [eyes[0], eyes[1], eyes[2] - BEHIND_EYES * height]
        return cls(((vertices - middle) / height).astype(np.float32), triangles,
                   coordinates.astype(np.float32),
                   texture[::step, ::step].astype(np.float32) / 255)

    def render(self, size: int, yaw: float = 0.0, pitch: float = 0.0,
               zoom: float = 1.0) -> np.ndarray:
        """Draw the head as `HeadModel.render` draws people, uint8 (row, col, 4)."""
        samples = 3 if size < FINE_BELOW else 2
        points = projected(self.vertices @ rotation(yaw, pitch, 0.0).T, size * samples, zoom)
        pixels, seen, weights = rasterize(points, self.triangles, size * samples)
        place = np.einsum("pck,pc->pk", self.coordinates[seen], weights)
        rows, cols = self.texture.shape[:2]
        col, row = (np.clip((share * length).astype(int), 0, length - 1)
                    for share, length in zip(place.T, (cols, rows)))
        return averaged(pixels, self.texture[row, col], size, samples)


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, triangles, and texture coordinates (triangle, 3, 2) from the top left."""
    lines: dict[str, list[list[float]]] = {"v": [], "vt": []}
    corners: list[list[list[int]]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *rest = line.split() or [""]
        if word in lines:
            lines[word].append([float(number) for number in rest])
        elif word == "f":
            corners.append([[int(number) - 1 for number in corner.split("/")[:2]]
                            for corner in rest])
    both = np.array(corners)
    if both.ndim != 3 or both.shape[1:] != (3, 2):
        raise ValueError(f"{path.name} is not made of triangles with texture coordinates")
    textured = np.array(lines["vt"])[:, :2][both[..., 1]]
    textured[..., 1] = 1 - textured[..., 1]
    return np.array(lines["v"])[:, :3], both[..., 0], textured


def _landmarks(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The point between the eyes and the tip of the chin, (3,) each."""
    group = next(iter(json.loads(path.read_text(encoding="utf-8"))["groups"].values()))
    points = np.array(group["landmarks"]["points"], float)
    named = {label["label"]: points[label["mask"]] for label in group["labels"]}
    jaw = named["chin"]
    return (named["leye"].mean(axis=0) + named["reye"].mean(axis=0)) / 2, jaw[jaw[:, 1].argmin()]
