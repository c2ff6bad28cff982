"""The pixels of training images: from the file, and from memory when they have been read once."""
import numpy as np

from hpclcae.data.minibatches import MinibatchStream, read_shown
from hpclcae.partition.blocks import Rectangle
from hpclcae.training.cache import Kept, needed


class Pixels:
    """What one block sees of its replica's images. For one thread at a time.

    Parameters
    ----------
    part : Rectangle
        Of each image.
    most : float
        Bytes that pixels may take; if all of them need more, none are kept. Images that are moved
        are always read: each time a block sees other pixels.
    """

    def __init__(self, batches: MinibatchStream, part: Rectangle, most: float) -> None:
        self._batches, self._part = batches, part
        dataset = batches.dataset
        # A part that lies in the middle is turned over in memory. Of any other the mirrored image
        # has other pixels: they are kept beside it.
        self._beside = batches.mirror and sum(part.cols) != dataset.cols
        shape = *part.shape, dataset.channels
        entries = batches.count * (2 if self._beside else 1)
        fits = not batches.crop and needed(entries, shape, np.uint8) <= most
        self.kept = Kept(entries, shape, np.uint8, "data.keep") if fits else None

    def read(self, numbers: np.ndarray, mirrored: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """Some images as they are shown: uint8 (image, row, col, channel).

        Parameters
        ----------
        numbers : int array (image,)
            Within those of the replica's own stream (MinibatchStream.numbers).
        mirrored : bool array (image,), moved : int array (image, 2)
            See minibatches.read_shown.
        """
        dataset, part, kept = self._batches.dataset, self._part, self.kept
        outside = (numbers < 0) | (numbers >= self._batches.count)
        if kept is None or outside.any():  # of another stream: seen once
            return read_shown(dataset, self._batches.at(numbers), mirrored, part, moved)
        entries, turned = numbers, np.zeros_like(mirrored)
        if self._beside:
            entries, turned = 2 * numbers + mirrored, mirrored
        absent = kept.absent(entries)
        if absent.any():
            kept.put(entries[absent], read_shown(dataset, self._batches.at(numbers[absent]),
                                                 turned[absent], part))
        images = kept.get(entries)
        if not self._beside and mirrored.any():
            images[mirrored] = images[mirrored, :, ::-1]
        return images
