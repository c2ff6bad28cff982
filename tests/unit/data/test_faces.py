"""OpenCV's detector: where it sees a face, in images of any size, and what is said without it."""
import sys

import numpy as np
import pytest

from hpclcae.data import faces
from hpclcae.data.faces import find_faces, have_faces
from hpclcae.utils.errors import MissingExtraError
from tests.support.faces import draw_face
from tests.support.pictures import scene

cv2 = pytest.importorskip("cv2")


@pytest.mark.parametrize("size", [32, 60, 200, 300])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_face_is_found_where_it_is(size, channels):
    image = draw_face(size, at=(0.45, 0.55), height=0.7)
    image = image if channels == 3 else image.mean(axis=2, keepdims=True).astype(np.uint8)
    (top, left, bottom, right), = find_faces(image)
    assert abs((top + bottom) / 2 / size - 0.55) < 0.06
    assert abs((left + right) / 2 / size - 0.45) < 0.06
    assert 0.4 < (bottom - top) / size < 0.8 and abs(bottom - top - right + left) <= 2


def test_scenes_hardly_have_any_and_the_answer_is_the_same_again():
    assert have_faces([scene(i) for i in range(50)]).sum() <= 3
    face, nothing = draw_face(96), np.zeros((40, 40), np.uint8)
    assert have_faces([face, nothing]).tolist() == [True, False]
    np.testing.assert_array_equal(find_faces(face), find_faces(face))
    assert find_faces(nothing).shape == (0, 4)


def test_without_opencv_or_with_one_without_cascades_one_line_says_what_to_install(monkeypatch):
    faces._cascade.cache_clear()
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(MissingExtraError, match=r"no Haar cascades.*hpclcae\[detect\]"):
        faces.require_detector()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"finding faces needs cv2.*hpclcae\[detect\]"):
        faces.require_detector()
