"""The pixels of training images: from the file, and from memory when they have been read once."""
import numpy as np

from hpclcae.data.minibatches import MinibatchStream, read_mirrored
from hpclcae.partition.blocks import Rectangle
from hpclcae.training.cache import Kept, needed


class Pixels:
    """What one block sees of its replica's images. For one thread at a time.

    Parameters
    ----------
    part : Rectangle
        Of each image.
    most : float
        Bytes that pixels may take; if all of them need more, none are kept.
    """

    def __init__(self, batches: MinibatchStream, part: Rectangle, most: float) -> None:
        self._batches, self._part = batches, part
        dataset = batches.dataset
        # A part that lies in the middle is turned over in memory. Of any other the mirrored image
        # has other pixels: they are kept beside it.
        self._beside = batches.mirror and sum(part.cols) != dataset.cols
        shape = *part.shape, dataset.channels
        entries = batches.count * (2 if self._beside else 1)
        fits = needed(entries, shape, np.uint8) <= most
        self.kept = Kept(entries, shape, np.uint8, "data.keep") if fits else None

    def read(self, indices: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """Some images, those of a mask mirrored left to right: uint8 (image, row, col, channel)."""
        dataset, part, kept = self._batches.dataset, self._part, self.kept
        if kept is None:
            return read_mirrored(dataset, indices, mirrored, part)
        entries, turned = indices - self._batches.first, np.zeros_like(mirrored)
        if self._beside:
            entries, turned = 2 * entries + mirrored, mirrored
        absent = kept.absent(entries)
        if absent.any():
            kept.put(entries[absent], read_mirrored(dataset, indices[absent], turned[absent], part))
        images = kept.get(entries)
        if not self._beside and mirrored.any():
            images[mirrored] = images[mirrored, :, ::-1]
        return images
