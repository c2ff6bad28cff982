"""What results were made from: fingerprints, and how the frames of a dataset are framed.

Results of another test set, or of other weights, look like the right ones and mean nothing. So they
carry two fingerprints, and whoever reads them asks `require_same` first.
"""
import hashlib

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.utils.errors import InputError


def halves(dataset: Dataset) -> np.ndarray | None:
    """Half of each image, 0 development, 1 final; None in files that do not say."""
    return getattr(dataset, "half", None)


def framing(dataset: Dataset) -> str:
    """How large the concept is in the frames, and where; "" if the file does not say."""
    stated = getattr(dataset, "framing", None)
    if stated is not None:
        return str(stated)
    size = dataset.settings.get("face_size")
    if not size:
        return ""
    where = "anywhere" if dataset.settings.get("anywhere") else "in the middle"
    return f"faces of {size[0]:g} to {size[1]:g} of the frame, {where}"


def dataset_fingerprint(dataset: Dataset) -> str:
    """A hash of images, labels and groups."""
    stated = getattr(dataset, "fingerprint", None)
    if stated is not None:
        return str(stated)
    digest = hashlib.blake2b(digest_size=16)
    for first in range(0, dataset.count, 1000):
        digest.update(dataset.read(np.arange(first, min(first + 1000, dataset.count))).data)
    if dataset.labels is not None:
        digest.update(np.ascontiguousarray(dataset.labels).data)
    digest.update("\n".join(dataset.groups).encode())
    return digest.hexdigest()


def weights_fingerprint(model: Model) -> str:
    """A hash of the weights and of what prepares the images."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(model.config.stages).encode())
    for array in (model.parameters.vector, model.preprocessor.fitted.kernel):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def require_same(stored: object, found: str, results: object, what: str, remedy: str) -> None:
    """Refuse results that were made from something else.

    Parameters
    ----------
    stored : object
        The fingerprint in the results; None where an older version wrote them: nothing is known.
    found : str
        The fingerprint of what is there now.
    results, what, remedy : object, str, str
        For the message: the file of the results, what differs ("test set t.h5"), what to do.

    Raises
    ------
    InputError
        They differ.
    """
    if stored is not None and stored != found:
        raise InputError(f"{results} was made from another {what}: {remedy}")
