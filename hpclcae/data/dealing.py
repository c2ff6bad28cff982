"""How the images of an epoch are dealt to replicas, also when there are more or fewer of them.

A *logical stream* (`Stream`) is one of n equal portions of the images in an endless random order, a
function of (seed, its number, n): the same whoever reads it, and whenever. With R replicas from the
beginning on, replica r reads stream r of R.

When a run goes on with another number of replicas, every stream has been read up to its cursor, and
what lies between there and the end of the epoch is left: a few pieces of streams. `Deal.again` cuts
them into as many equal shares as there are replicas now. Each replica reads its share first, then
goes on with its own one of the new streams in the next epoch. That may happen again and again, also
within one epoch: every image is seen exactly once in each.

Where replicas are not equally far (asynchronous training) the epoch is that of the furthest: those
behind leave more than one pass over some images, and after the rest all have been seen equally
often.

A deal takes the memory of its pieces: with each change at most one for every replica that there
was, and as many cuts. A rest that has been read leaves none.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

#: Images that are read in one go. Chunks of our files are as long; whatever they become, a run that
#: goes on must draw what it would have drawn.
RUN = 8
#: Most runs of a deck; its order takes 1 MB.
DECK = 2**17


class Stream:
    """One of several portions of all images, in its endless order.

    It is drawn in runs of consecutive images (a chunk of the file), in a new random order in every
    epoch. The order takes the memory of one deck of runs, however many images there are. Of d
    decks, deck i has the runs i, i + d, i + 2d, ...: a sample of the whole portion. An epoch takes
    the decks in a random order and shuffles each when it comes to it. A portion of up to a million
    images is one deck.

    Parameters
    ----------
    total : int
        All images.
    seed : int
    number, streams : int
        Which one of how many.

    Attributes
    ----------
    first, count : int
        Which images are in it.
    """

    def __init__(self, total: int, seed: int, number: int, streams: int) -> None:
        self.seed, self.number, self.streams = seed, number, streams
        self.first, end = _bounds(total, number, streams)
        self.count = end - self.first
        self._runs = -(-self.count // RUN)
        self._decks = -(-self._runs // DECK)
        self._shuffled: tuple[int, int, np.ndarray, int] | None = None  # epoch, deck, _order

    def drawn(self, position: int, most: int) -> np.ndarray:
        """Up to `most` images (of `first`, first + 1, ...) from a place in the stream on; none from
        beyond the end of an epoch or a deck."""
        epoch, place = divmod(position, self.count)
        decks = np.arange(self._decks)
        if self._decks > 1:
            decks = np.random.default_rng([self.seed, self.number, 2, epoch]).permutation(decks)
        runs = -(-(self._runs - decks) // self._decks)
        short = self._runs * RUN - self.count  # what the last run lacks
        images = runs * RUN - short * (decks == (self._runs - 1) % self._decks)
        ends = np.cumsum(images)
        which = int(np.searchsorted(ends, place, side="right"))
        deck, size = int(decks[which]), int(images[which])
        order, last = self._order(epoch, deck, int(runs[which]))
        place -= int(ends[which]) - size
        places = np.arange(place, min(place + most, size))
        places[places >= last * RUN + RUN - short] += short  # behind the run that is not whole
        return self.first + (order[places // RUN] * self._decks + deck) * RUN + places % RUN

    def _order(self, epoch: int, deck: int, runs: int) -> tuple[np.ndarray, int]:
        """The order of the runs of a deck; at which place the last one of all stands, if it does.
        """
        if self._shuffled is None or self._shuffled[:2] != (epoch, deck):
            words = [self.seed, self.number, 0, epoch, *([deck] if self._decks > 1 else [])]
            order = np.random.default_rng(words).permutation(runs)
            found = np.flatnonzero(order * self._decks + deck == self._runs - 1)
            self._shuffled = epoch, deck, order, int(found[0]) if found.size else runs
        return self._shuffled[2:]


class Piece(NamedTuple):
    """Images start <= position < stop of stream `number` of `streams`."""
    streams: int
    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class Deal:
    """Who reads what from some step on.

    Attributes
    ----------
    replicas : int
    step : int
        All of them begin with it.
    epochs : int
        How often every image has been seen when the rest has been: the epoch in which each replica
        goes on with its own stream.
    rest : tuple of Piece
        What was left when this deal was made; the replicas have equal shares of it, in this order.
    """
    replicas: int = 1
    step: int = 0
    epochs: int = 0
    rest: tuple[Piece, ...] = ()

    @property
    def left(self) -> int:
        """Images in the rest."""
        return sum(piece.stop - piece.start for piece in self.rest)

    def share(self, replica: int) -> list[Piece]:
        """A replica's share of the rest."""
        begin, end = (self.left * part // self.replicas for part in (replica, replica + 1))
        return _between(self.rest, begin, end)

    def passes(self, total: int) -> float:
        """How often the images (`total` of them) have been seen on average when it begins."""
        return self.epochs - self.left / total

    def again(self, replicas: int, step: int, taken: Sequence[int], total: int) -> "Deal":
        """Deal to another number of replicas.

        Parameters
        ----------
        step : int
            All of the new ones begin with it.
        taken : sequence of int (replicas,)
            Images that each of the old ones has taken since this deal began.
        total : int
            All images.
        """
        rest: list[Piece] = []
        own: list[tuple[int, int]] = []  # of each replica: images of its stream, place in it
        for replica, images in enumerate(taken):
            share, begin, end = self.share(replica), *_bounds(total, replica, self.replicas)
            of_share = sum(piece.stop - piece.start for piece in share)
            rest += _between(share, min(images, of_share), of_share)
            own.append((end - begin, self.epochs * (end - begin) + max(0, images - of_share)))
        epochs = max(-(-place // count) for count, place in own)
        rest += [Piece(self.replicas, replica, place, epochs * count)
                 for replica, (count, place) in enumerate(own) if place < epochs * count]
        return Deal(replicas, step, epochs, tuple(rest))


def _bounds(total: int, number: int, parts: int) -> tuple[int, int]:
    return total * number // parts, total * (number + 1) // parts


def _between(pieces: Sequence[Piece], begin: int, end: int) -> list[Piece]:
    """What lies from image `begin` up to `end` of some pieces, one after the other."""
    found, before = [], 0
    for piece in pieces:
        size = piece.stop - piece.start
        start, stop = max(begin - before, 0), min(end - before, size)
        if start < stop:
            found.append(piece._replace(start=piece.start + start, stop=piece.start + stop))
        before += size
    return found
