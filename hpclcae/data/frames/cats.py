"""Cats made of ellipsoids and cones: head, ears, muzzle, eyes, chest; no package ships cats.

They are toys, and said to be rendered wherever they are tested: what tells them from other things
is two ears, two eyes and a muzzle at their places.
"""
from collections.abc import Callable

import numpy as np

from hpclcae.data.frames.figure import Figure

COATS = np.array([[28, 26, 26], [120, 118, 120], [196, 128, 66], [108, 84, 62], [226, 214, 196],
                  [238, 236, 232]]) / 255
EYES = np.array([[150, 170, 60], [204, 168, 40], [90, 140, 190], [110, 150, 80]]) / 255
PINK, BLACK, WHITE = np.array([[214, 150, 146], [14, 13, 13], [240, 238, 234]]) / 255
#: places (vertex, 3) -> colours (vertex, 3)
Paint = Callable[[np.ndarray], np.ndarray]
AROUND, ALONG = 28, 18  # vertices of an ellipsoid


def random_cat(rng: np.random.Generator) -> Figure:
    """A cat's head and chest; one height is from the chin to the tips of the ears."""
    coat = COATS[rng.choice(len(COATS))] * rng.uniform(0.85, 1.1)
    marked = rng.choice(["plain", "tabby", "white", "points"], p=[0.3, 0.35, 0.25, 0.1])
    muzzle = {"white": WHITE, "points": coat * 0.35}.get(marked, coat + (1 - coat) * 0.25)
    ears_coat = coat * (0.35 if marked == "points" else 0.9)
    wide, ear = rng.uniform(0.9, 1.12), rng.uniform(0.8, 1.2)
    eye, pupil = rng.uniform(0.85, 1.2), rng.uniform(0.25, 0.8)
    apart = 0.17 * wide * rng.uniform(0.92, 1.08)
    phase = rng.uniform(0, 6, 2)

    def striped(place: np.ndarray) -> np.ndarray:
        colours = np.tile(coat, (len(place), 1))
        if marked == "tabby":
            x, y, z = place.T
            bands = np.sin(26 * np.abs(x) + 9 * y + phase[0]) * (y > -0.05)
            bands = np.where(y < -0.3, np.sin(20 * y + 6 * z + phase[1]), bands)
            colours *= (1 - 0.5 * (bands > 0.35))[:, None]
        return colours

    def plain(colour: np.ndarray) -> Paint:
        return lambda place: np.tile(colour, (len(place), 1))

    parts = [(_ellipsoid((0, 0, 0), (0.40 * wide, 0.34, 0.34)), striped),
             (_ellipsoid((0, -0.85, -0.22), (0.42, 0.62, 0.36)), striped),
             (_ellipsoid((0, -0.80, -0.85), (0.46, 0.52, 0.60)), striped),
             (_ellipsoid((0, -0.78, 0.02), (0.22, 0.40, 0.20)), plain(muzzle)),
             (_ellipsoid((0, -0.16, 0.27), (0.12, 0.09, 0.12)), plain(muzzle)),
             (_ellipsoid((0, -0.095, 0.385), (0.036, 0.026, 0.022)),
              plain(PINK if rng.random() < 0.6 else BLACK)),
             (_ellipsoid((0, -0.20, 0.373), (0.045, 0.007, 0.01)), plain(BLACK))]
    colour = EYES[rng.choice(len(EYES))]
    for side in (-1, 1):
        parts += [(_ellipsoid((side * 0.22 * wide, -0.12, 0.12), (0.17, 0.14, 0.17)), striped),
                  (_ellipsoid((side * 0.06, -0.165, 0.335), (0.075, 0.06, 0.06)), plain(muzzle)),
                  (_ellipsoid((side * apart, 0.05, 0.268), (0.082 * eye, 0.082 * eye, 0.05)),
                   plain(colour)),
                  (_ellipsoid((side * apart * 0.98, 0.05, 0.300),
                              (0.075 * eye * pupil, 0.072 * eye, 0.026)), plain(BLACK)),
                  (_cone((side * 0.25 * wide, 0.20, 0.0), (side * 0.33 * wide, 0.2 + 0.42 * ear,
                                                           0.0), (0.16, 0.08)), plain(ears_coat)),
                  (_cone((side * 0.25 * wide, 0.21, 0.05), (side * 0.32 * wide, 0.2 + 0.34 * ear,
                                                            0.045), (0.10, 0.05)),
                   plain(PINK * 0.85))]
    vertices, triangles, colours, count = [], [], [], 0
    for (points, faces), paint in parts:
        vertices.append(points)
        triangles.append(faces + count)
        colours.append(np.clip(paint(points), 0, 1))
        count += len(points)
    place = np.concatenate(vertices)
    height = 0.34 + 0.2 + 0.42 * ear  # chin to tips
    place = (place - [0, (0.2 + 0.42 * ear - 0.34) / 2, 0]) / height
    return Figure(place.astype(np.float32), np.concatenate(triangles),
                  np.concatenate(colours).astype(np.float32))


def _ellipsoid(middle: tuple[float, ...], radii: tuple[float, ...]
               ) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (vertex, 3) and triangles (triangle, 3)."""
    down = np.linspace(0, np.pi, ALONG)
    round_ = np.arange(AROUND) * 2 * np.pi / AROUND
    ball = np.stack([np.outer(np.sin(down), np.sin(round_)), np.outer(np.cos(down),
                                                                      np.ones(AROUND)),
                     np.outer(np.sin(down), np.cos(round_))], -1).reshape(-1, 3)
    return ball * radii + middle, _grid(ALONG)


def _cone(middle: tuple[float, ...], tip: tuple[float, ...], radii: tuple[float, float]
          ) -> tuple[np.ndarray, np.ndarray]:
    """A cone on an ellipse of the radii (x, z); vertices and triangles."""
    rings = np.linspace(1, 0, 6)
    round_ = np.arange(AROUND) * 2 * np.pi / AROUND
    base = np.stack([radii[0] * np.sin(round_), np.zeros(AROUND), radii[1] * np.cos(round_)], 1)
    start, end = np.array(middle), np.array(tip)
    # from the tip down, as an ellipsoid begins with its top
    points = [end + (start - end) * (1 - ring) + base * (1 - ring) for ring in rings]
    return np.concatenate(points), _grid(len(rings))


def _grid(rows: int) -> np.ndarray:
    """The triangles of rows of AROUND vertices, anticlockwise from outside."""
    row, col = (part.ravel() for part in np.mgrid[:rows - 1, :AROUND])
    here, right = row * AROUND + col, row * AROUND + (col + 1) % AROUND
    below, corner = here + AROUND, right + AROUND
    return np.concatenate([np.stack([here, below, corner], 1), np.stack([here, corner, right], 1)])
