"""A scanned head: its place and size by landmarks, its sides by the texture."""
import numpy as np
import pytest

from hpclcae.data.frames.heads import FILLS
from hpclcae.data.frames.scanned_head import LANDMARKS, ScannedHead
from hpclcae.utils.errors import InputError
from tests.support.synthetic_head import write_scan


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
