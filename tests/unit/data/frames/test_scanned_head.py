"""A scanned head: its place and size by landmarks, its sides by the texture."""
import json

import numpy as np
import pytest

from hpclcae.data.frames.heads import FILLS
from hpclcae.data.frames.scanned_head import LANDMARKS, MESH, TEXTURE, ScannedHead
from hpclcae.utils.errors import InputError
from tests.support.synthetic_head import ball


def write_scan(sources, red_side=True):
    """A ball whose texture is red on the left of the picture; eyes in its middle, chin at its foot.
    """
    image = pytest.importorskip("PIL.Image")
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
    image.fromarray(texture).save(sources / "menpo3d" / TEXTURE, quality=95)
    points = [(-5, 70, 20), (15, 70, 20), (5, 50, 3)]
    (sources / "menpo3d" / LANDMARKS).write_text(json.dumps({"groups": {"LJSON": {
        "landmarks": {"points": points}, "labels": [{"label": "leye", "mask": [0]},
                                                    {"label": "reye", "mask": [1]},
                                                    {"label": "chin", "mask": [2]}]}}}))


def test_a_scan_fills_its_share_and_turns_like_other_heads(tmp_path):
    write_scan(tmp_path)
    head = ScannedHead.find(tmp_path)
    front = head.render(60)
    rows = np.flatnonzero(front[:, 30, 3] > 127)
    assert abs((rows[-1] - rows[0] + 1) / 60 - FILLS) < 0.06  # chin to crown is 40 high here
    inside = front[..., 3] == 255
    red = front[..., 0] > front[..., 2]
    assert red[:, :28][inside[:, :28]].mean() > 0.9 and red[:, 32:][inside[:, 32:]].mean() < 0.1
    turned = head.render(60, yaw=80)  # the nose to the right: its right side is seen
    inside = turned[..., 3] == 255
    assert (turned[..., 0] > turned[..., 2])[inside].mean() > 0.8
    small = head.render(60, zoom=0.5)
    assert 0.2 < small[..., 3].mean() / front[..., 3].mean() < 0.32


def test_no_scan_and_a_damaged_one(tmp_path):
    assert ScannedHead.find(tmp_path) is None
    write_scan(tmp_path)
    (tmp_path / "menpo3d" / LANDMARKS).write_text("{}")
    with pytest.raises(InputError, match="data fetch --only menpo3d"):
        ScannedHead.find(tmp_path)
