"""A trained network as something to ask: prepared images in, responses of every stage out."""
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae import checkpoint
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.data.fitting import fitting_pass
from hpclcae.model.classifier import probabilities
from hpclcae.model.conditioner import Conditioner, is_fitted
from hpclcae.model.conditioner_fit import fit_conditioner
from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.preprocess import Preprocessor
from hpclcae.utils.errors import InputError


@dataclass(frozen=True)
class Model:
    """A network with its parameters and its preprocessing; make one with `load`.

    step : int
        Training steps behind the parameters; 0 for random weights.
    categories : tuple of str
        Names of the classes; none without a classifier.
    """
    config: Config
    network: Network
    parameters: ParameterVector
    preprocessor: Preprocessor
    step: int
    path: Path
    conditioners: tuple[Conditioner | None, ...] = ()
    categories: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> "Model":
        """Load a checkpoint; of a run folder the best one on validation images, or the newest.

        Raises
        ------
        InputError
            There is none, or it cannot be read.
        """
        file = checkpoint.find_best(path)
        state, network = checkpoint.load(file)
        preprocessor = state.preprocessing.preprocessor(state.config.data.size, network.dtype)
        return cls(state.config, network, state.parameters, preprocessor, state.step, file,
                   state.conditioners, state.categories)

    def with_random_weights(self, seed: int, train: Dataset | None = None) -> "Model":
        """The same architecture and preprocessing, untrained.

        Conditioners are fitted to the random stages, as they are in training.

        Parameters
        ----------
        train : Dataset, optional
            What they are fitted on; without it the training images of the configuration.

        Raises
        ------
        InputError
            The training images are needed and cannot be opened.
        """
        network = Network(self.network.layout)
        parameters = network.parameters(seed)
        fitted: list[Conditioner] = []
        stages = [index for index, stage in enumerate(self.config.stages) if is_fitted(stage)]
        with ExitStack() as opened:
            if stages and train is None:
                train = opened.enter_context(Dataset(self.config.data.train))
            for index in stages:
                assert train is not None
                images = fitting_pass(self.config, train, index, self.preprocessor)
                fitted.append(fit_conditioner(network, index, parameters, images))
        return Model(self.config, network, parameters, self.preprocessor, 0, self.path,
                     tuple(fitted))

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Turn images into the network's input (row, col, channel, image).

        They are uint8 (image, row, col, channel).

        Raises
        ------
        InputError
            The images have another size or number of channels than the network's.
        """
        data = self.config.data
        if images.shape[1:] != (data.size, data.size, data.channels):
            raise InputError(f"images are {' x '.join(map(str, images.shape[1:]))}, the network of "
                             f"{self.path} takes {data.size} x {data.size} x {data.channels}")
        return self.preprocessor(images)

    def responses(self, x: np.ndarray) -> list[np.ndarray]:
        """Each stage's response (row, col, map, image) for prepared images.

        Overwritten by the next call. In the course of greedy training only of the stages that have
        been trained, or are being trained.
        """
        return self.network.responses(self.parameters, x)

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Scores of all classes (class, image) for prepared images.

        Overwritten by the next call.

        Raises
        ------
        InputError
            There is no classifier.
        """
        if self.network.classifier is None:
            raise InputError(f"{self.path} has no classifier: hpclcae finetune trains one on it")
        return self.network.scores(self.parameters, x)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """How likely each class is for prepared images: float64 (class, image).

        One against all others, every class has a probability by itself; with softmax they add up to
        1. Errors as in `scores`.
        """
        return probabilities(self.config.classifier, self.scores(x))

    def filters(self, stage: int) -> np.ndarray:
        """Encoding filters of a stage (from 0), normalised as in the forward pass.

        Returns
        -------
        (row, col, krow, kcol, map in, map)
        """
        plan = self.network.stages[stage]
        filters = plan.filters(self.parameters, "encode")
        weights = (filters.weights if filters.scale is None
                   else filters.weights * filters.scale[:, :, None, :])
        return np.concatenate([plan.filter.unpack_row(weights, j)
                               for j in range(plan.filter.tile_rows)])
