"""What results were made from: fingerprints.

Results of another test set, or of other weights, look like the right ones and mean nothing. So they
carry two fingerprints, and whoever reads them asks `require_same` first.
"""
import hashlib

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.utils.errors import InputError


def weights_fingerprint(model: Model) -> str:
    """A hash of the weights, of what stands between the stages and of what prepares images."""
    if model.network.layout.grid.size > 1:  # one block of it: other numbers, in another order
        model = Model.load(model.path)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(model.config.stages).encode())
    numbers = [array for conditioner in model.conditioners if conditioner
               for array in conditioner.arrays().values()]
    for array in (model.parameters.vector, model.preprocessor.fitted.kernel, *numbers):
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
