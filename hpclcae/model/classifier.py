"""Categories told apart on the response of the top stage (paper, supervised phase).

With the features y of an image, every one standardised, and weights and bias of every class::

    v = (y - mean) / deviation              s_c = w_c' v + b_c

* ``logistic``: one classifier against all others for every class (the paper's). With t_c = 1 for
  the image's class and 0 for the others: sum over c of log(1 + exp s_c) - t_c s_c.
* ``softmax``: log(sum over c of exp s_c) - s_t.

The objective is the mean over the images of a minibatch, each times the weight of its class, plus
l2 / 2 times the sum of all squared weights w (the bias is free). Its gradient is derived in
notes/equations.md, section 12; both are computed here and nowhere else.

**On a grid** every block has the weights of the features that it owns. Each makes its part of all
scores, one sum over the blocks makes the scores, and from there on every block knows what it needs:
its gradient with respect to the scores is that of all. Where a block could not hold all classes of
its features, they are cut into parts (ClassifierConfig.parts): a column of blocks has the classes
of a part, and its blocks the features of whole rows of positions. The same sum makes the scores.

To everything that stores, sends or updates weights, they are a layer of filters that see one
position (model/layout.py): (row, col, map, class) are (tile row, tile col, input, unit).
"""
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logsumexp

from hpclcae.config import ClassifierConfig
from hpclcae.model.conditioner import Conditioner
from hpclcae.model.layers.local_filter import RowSink
from hpclcae.model.layers.standardise import Standardisation
from hpclcae.model.layout import BlockLayout
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.workspace import Workspace
from hpclcae.partition.communicator import Communicator
from hpclcae.partition.halo import Exchange


@dataclass(frozen=True)
class ClassifierLoss:
    """The objective of one minibatch, and how many of its images are put into their class."""
    data: float     # mean over the images, weighted
    penalty: float  # l2 / 2 times the sum of squared weights
    right: float    # share of the images whose class has the highest score

    @property
    def objective(self) -> float:
        return self.data + self.penalty


class Classifier:
    """The classifier on one block of a network; arrays are (class, image).

    Parameters
    ----------
    block : BlockLayout
    communicator : Communicator
        To the other blocks.

    Attributes
    ----------
    class_weights : ndarray (class,) or None
        What the images of each class count; None: all the same.
    loss : ClassifierLoss
        Of the latest `forward`.
    """

    def __init__(self, block: BlockLayout, communicator: Communicator) -> None:
        layout = block.layout
        self.config: ClassifierConfig = layout.config.classifier
        self.dtype, self.communicator = layout.dtype, communicator
        self.plan = layout.features(block.rank)
        self.shape = layout.geometry[-1].output
        self.parts = [part for number, part in enumerate(layout.parts)
                      if layout.holds(block.rank, number)]
        self.class_weights: np.ndarray | None = None
        self.loss = ClassifierLoss(0.0, 0.0, 0.0)
        self._exchange = Exchange(self.plan, communicator)
        self._standardisation = Standardisation(log=False)
        self._fitted: tuple[np.ndarray, np.ndarray] | None = None  # mean and 1 / deviation
        self._kept = Workspace()

    def condition(self, conditioner: Conditioner | None) -> None:
        """Standardise features with these numbers from now on; None: they are taken as they are."""
        self._fitted = None
        if conditioner is None or conditioner.mean is None or conditioner.deviation is None:
            return
        where = slice(*self.plan.held.rows), slice(*self.plan.held.cols)
        mean, deviation = (np.ascontiguousarray(array[where], self.dtype)
                           for array in (conditioner.mean, conditioner.deviation))
        gain = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        self._fitted = mean, gain

    # ---- forward ---------------------------------------------------------------------------------

    def hold(self, y: np.ndarray) -> np.ndarray:
        """The features that the block reads (row, col, map, image), from those that it owns."""
        if self.plan.held == self.plan.owned:
            features = y
        else:
            features = self._kept.array("features", (*self.plan.held.shape, *y.shape[2:]),
                                        self.dtype)
            features[self.plan.own] = y
        self._exchange.fill(features)
        return features

    def scores(self, parameters: ParameterVector, features: np.ndarray) -> np.ndarray:
        """Scores of all classes (class, image) of the held features; overwritten by the next call.
        """
        return self._scores(parameters, features, ())[0]

    def forward(self, parameters: ParameterVector, features: np.ndarray, labels: np.ndarray,
                said: tuple[bool, ...] = ()) -> list[bool]:
        """Scores, objective (`loss`) and the gradient with respect to the scores.

        Parameters
        ----------
        features : (row, col, map, image)
            The held ones.
        labels : int array (image,)
        said : tuple of bool
            Flags that this block tells the others.

        Returns
        -------
        list of bool
            What at least one block said.
        """
        squares = sum(float(np.vdot(row, row)) for part in self.parts
                      for row in parameters[part.weights]) if self.config.l2 else 0.0
        scores, sums = self._scores(parameters, features, (squares, *said))
        images = np.arange(len(labels))
        weights = (np.ones(len(labels)) if self.class_weights is None
                   else self.class_weights[labels])
        right = float((scores.argmax(axis=0) == labels).mean())
        each = objectives(self.config, scores, labels)
        if self.config.loss == "logistic":
            expit(scores, out=scores)
        else:
            scores -= logsumexp(scores, axis=0)
            np.exp(scores, out=scores)
        scores[labels, images] -= 1
        scores *= (weights / len(labels)).astype(self.dtype)
        self._dscores, self._parameters = scores, parameters
        self.loss = ClassifierLoss(float(weights @ each) / len(labels),
                                   0.5 * self.config.l2 * float(sums[0]), right)
        return [bool(flag) for flag in sums[1:]]

    def _scores(self, parameters: ParameterVector, features: np.ndarray,
                more: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Scores, and the sums over all blocks of a few more numbers."""
        images = features.shape[-1]
        self._v = v = features
        if self._fitted:
            self._v = v = self._kept.array("v", features.shape, self.dtype)
            self._standardisation.forward(features, *self._fitted, v)
        classes = self.config.classes
        flat = self._kept.array("scores", (classes * images + len(more),), self.dtype)
        flat[:classes * images] = 0
        flat[classes * images:] = more
        scores = flat[:classes * images].reshape(classes, images)
        for part in self.parts:
            weights, bias = parameters[part.weights], parameters[part.bias]
            own = scores[part.first:part.stop]
            if weights.size:
                np.matmul(weights.reshape(-1, weights.shape[-1]).T, v.reshape(-1, images), out=own)
            if bias.size:
                own += bias.reshape(-1, 1)
        self.communicator.sum_in_place(flat)
        return scores, flat[classes * images:]

    # ---- backward --------------------------------------------------------------------------------

    def backward(self, on_gradient: RowSink, through: bool) -> np.ndarray | None:
        """Gradients of the latest `forward`, row of positions by row of positions.

        Parameters
        ----------
        on_gradient : callable
            As in LocalFilter.backward; it may change the row's weights.
        through : bool
            Also with respect to the features.

        Returns
        -------
        (row, col, map, image) or None
            dy of the owned features; overwritten by the next call.
        """
        v, images = self._v, self._v.shape[-1]
        dv = self._kept.array("dv", v.shape, self.dtype) if through else None
        if dv is not None:
            dv[...] = 0
        for part in self.parts:
            d = self._dscores[part.first:part.stop]
            weights = self._parameters[part.weights]
            gradient = self._kept.array("gradient", weights.shape[1:], self.dtype)
            flat = gradient.reshape(-1, len(d))
            for row in range(len(weights)):
                own = weights[row].reshape(flat.shape)
                if dv is not None:
                    dv[row] += np.matmul(own, d).reshape(dv[row].shape)
                np.matmul(v[row].reshape(-1, images), d.T, out=flat)
                if self.config.l2:
                    flat += self.dtype.type(self.config.l2) * own
                on_gradient(part.weights, row, gradient)
            if self._parameters[part.bias].size:
                on_gradient(part.bias, 0, d.sum(axis=1).reshape(1, 1, -1))
        if dv is None:
            return None
        if self._fitted:
            dv *= self._fitted[1][..., None]
        self._exchange.fold(dv)
        return dv[self.plan.own]


def objectives(config: ClassifierConfig, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The objective of each image, without penalty and class weights: float64 (image,).

    Parameters
    ----------
    scores : (class, image)
    labels : int array (image,)
    """
    true = scores[labels, np.arange(len(labels))].astype(np.float64)
    if config.loss == "logistic":
        # log(1 + exp s) in a form that overflows for no s, and faster than logaddexp
        each = np.abs(scores)
        np.log1p(np.exp(np.negative(each, out=each), out=each), out=each)
        each += np.maximum(scores, 0)
        return each.sum(axis=0, dtype=np.float64) - true
    return logsumexp(scores, axis=0).astype(np.float64) - true


def probabilities(config: ClassifierConfig, scores: np.ndarray) -> np.ndarray:
    """What the classifier holds for how likely, in float64 (class, image).

    One against all others, every class has a probability by itself: they do not add up to 1.
    """
    scores = scores.astype(np.float64)
    if config.loss == "logistic":
        return expit(scores)
    return np.exp(scores - logsumexp(scores, axis=0))


def balanced(labels: np.ndarray, classes: int) -> np.ndarray:
    """What each class counts so that all count the same together: images / (classes * its own).

    Parameters
    ----------
    labels : int array (image,)
        Of the training images.

    Returns
    -------
    ndarray (class,)
        0 for a class without images.
    """
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0)
