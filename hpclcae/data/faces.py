"""Where OpenCV sees frontal faces in images (extra: detect).

Its Haar cascade "frontalface_alt2" (Lienhart and Maydt 2002), which opencv-python-headless before
version 5 ships. It needs about 20 pixels a face, so a small image is enlarged for it, and a large
one made smaller: faces of less than a fifth of the image's side are not looked for. It misses faces
that are turned or half hidden, and finds few where there are none (notes/data.md).
"""
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.utils.errors import MissingExtraError, require

if TYPE_CHECKING:
    import cv2

CASCADE = "haarcascade_frontalface_alt2.xml"
SIDES = 60, 100   # pixels of the shorter side of what is searched, at least and at most
SCALE = 1.1       # from one size of the searched window to the next
NEIGHBOURS = 3    # windows that must agree on a face
LEAST_FACE = 0.2  # height of the searched window, as a share of the image's shorter side


def find_faces(image: np.ndarray) -> np.ndarray:
    """Find the faces in an image.

    Parameters
    ----------
    image : uint8 array (row, col, channel) or (row, col)
        One channel (grey), or three (red, green, blue).

    Returns
    -------
    int64 array (face, 4)
        Top, left, bottom, right of each, in pixels of `image`, in order.

    Raises
    ------
    MissingExtraError
        OpenCV is not installed, or is one without this detector.
    """
    cascade, cv2 = _cascade(), require("cv2", "detect", "finding faces")
    grey = np.ascontiguousarray(image)
    if grey.ndim == 3 and grey.shape[2] == 3:
        grey = cv2.cvtColor(grey, cv2.COLOR_RGB2GRAY)
    grey = grey.reshape(grey.shape[:2])
    side: int = min(grey.shape)
    scale = min(max(side, SIDES[0]), SIDES[1]) / side
    if scale != 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale,
                          interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    least = round(LEAST_FACE * min(grey.shape))
    found = np.array(cascade.detectMultiScale(grey, SCALE, NEIGHBOURS, minSize=(least, least)),
                     np.float64).reshape(-1, 4)
    left, top, width, height = (found / scale).T
    boxes = np.stack([top, left, top + height, left + width], axis=1).round().astype(np.int64)
    return boxes[np.lexsort(boxes.T[::-1])]


def have_faces(images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Whether any face is found in each of some images: bool (image,)."""
    return np.array([len(find_faces(image)) > 0 for image in images], bool)


def require_detector() -> None:
    """Load the detector: before the work, not within it.

    Raises
    ------
    MissingExtraError
        OpenCV is not installed, or is one without this detector.
    """
    _cascade()


@functools.cache
def _cascade() -> "cv2.CascadeClassifier":
    cv2 = require("cv2", "detect", "finding faces")
    try:
        cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / CASCADE))
    except AttributeError as error:
        raise MissingExtraError(f"OpenCV {cv2.__version__} has no Haar cascades (those before 5 "
                                "have them): pip install 'hpclcae[detect]'") from error
    if cascade.empty():
        raise MissingExtraError(f"OpenCV {cv2.__version__} lacks {CASCADE}: "
                                "pip install 'hpclcae[detect]'")
    cv2.setNumThreads(1)  # a process computes with one thread; and the order of windows is fixed
    return cascade
