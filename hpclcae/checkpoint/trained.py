"""A trained network as something to ask: prepared images in, responses of every stage out."""
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hpclcae import checkpoint
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.data.fitting import fitting_pass
from hpclcae.model.classifier import probabilities
from hpclcae.model.conditioner import Conditioner, is_fitted
from hpclcae.model.conditioner_fit import fit_conditioner
from hpclcae.model.layout import WHOLE
from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.preprocess import Preprocessor
from hpclcae.model.responses import Responses
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import Communicator
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
    def load(cls, path: str | Path, grid: Grid = WHOLE,
             communicator: Communicator | None = None) -> "Model":
        """Load a checkpoint, of a run folder the best on validation images or the newest.

        On a grid, one block of it.

        Parameters
        ----------
        path : str or Path
        grid : Grid, optional
            Blocks that share the network; without it there is one.
        communicator : Communicator, optional
            To the other blocks.

        Raises
        ------
        InputError
            There is none, or it cannot be read, or the grid does not fit.
        """
        file = checkpoint.find_best(path)
        state, network = checkpoint.load(file, grid, communicator)
        preprocessor = state.preprocessing.preprocessor(
            state.config.data.size, network.dtype, network.block.plan.stages[0].x,
            network.communicator)
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
        network = Network(self.network.layout, self.network.communicator)
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
        """Turn images into the network's input (row, col, channel, image), of the block's part.

        They are (image, row, col, channel), uint8 or real numbers in grey levels.

        Raises
        ------
        InputError
            The images have another size or number of channels than the network's.
        """
        data = self.config.data
        if images.shape[1:] != (data.size, data.size, data.channels):
            raise InputError(f"images are {' x '.join(map(str, images.shape[1:]))}, the network of "
                             f"{self.path} takes {data.size} x {data.size} x {data.channels}")
        rows, cols = (slice(*span) for span in (self.preprocessor.pixels.rows,
                                                self.preprocessor.pixels.cols))
        return self.preprocessor(images[:, rows, cols])

    def responses(self, x: np.ndarray) -> list[np.ndarray]:
        """Each stage's response (row, col, map, image) for prepared images, of the block's part.

        Overwritten by the next call. In the course of greedy training only of the stages that have
        been trained, or are being trained.
        """
        return self._responses(x)

    @cached_property
    def _responses(self) -> Responses:
        """What is made once of weights that stay as they are."""
        return Responses(self.network, self.parameters)

    def response_gradient(self, images: np.ndarray, stage: int,
                          where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The response of one neuron to each image, and its gradient with respect to the pixels.

        Through every layer below, conditioners and preprocessing. All blocks of a network call it
        and have the whole gradient.

        Parameters
        ----------
        images : (image, row, col, channel)
            Real numbers in grey levels, of the network's size.
        stage : int
            Of all the neurons, from 1.
        where : int array (image, 3)
            Row, col and map of the neuron that is asked about that image.

        Returns
        -------
        response : (image,)
        gradient : (image, row, col, channel)
        """
        inside, place = self.own_part(stage, where)
        at = (*place.T, np.flatnonzero(inside))
        response = np.zeros(len(images), self.network.dtype)

        def pick(y: np.ndarray) -> np.ndarray:
            response[inside] = y[at]
            dy = np.zeros_like(y)
            dy[at] = 1
            return dy
        dx = self.network.input_gradient(self.parameters, self.prepare(images), stage - 1, pick)
        whole, x = self._whole_preprocessor, self.network.block.plan.stages[0].x
        if x.owned != whole.owned:
            mine, dx = dx[x.own], np.zeros((*whole.owned.shape, *dx.shape[2:]), dx.dtype)
            dx[x.owned.within(whole.owned)] = mine
            self.network.communicator.sum_in_place(dx)
            self.network.communicator.sum_in_place(response)
        return response, whole.backward(images, dx)

    @cached_property
    def _whole_preprocessor(self) -> Preprocessor:
        """That of whole images, whose gradient every block takes by itself."""
        if self.network.layout.grid.size == 1:
            return self.preprocessor
        return self.preprocessor.fitted.preprocessor(self.config.data.size, self.network.dtype)

    def own_part(self, stage: int, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of some neurons of a stage (from 1) the block has, and their places in its part.

        Parameters
        ----------
        stage : int
        where : int array (neuron, 3)
            Row, col and map of each, in the whole stage.

        Returns
        -------
        inside : bool array (neuron,)
        place : int array (neuron of the block, 3)
            Row, col and map in what `responses` returns.
        """
        owned = self.network.block.plan.stages[stage - 1].y.owned
        first, last = np.transpose([owned.rows, owned.cols])
        inside = ((where[:, :2] >= first) & (where[:, :2] < last)).all(axis=1)
        return inside, where[inside] - [*first, 0]

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
        rows = [plan.filter.unpack_row(weights, j) for j in range(plan.filter.tile_rows)]
        field, maps = plan.filter.field, (plan.filter.maps_in, plan.filter.maps)
        empty = np.empty((0, plan.filter.out_cols, field, field, *maps), weights.dtype)
        return np.concatenate([empty, *rows])  # a block may have none

    def filters_at(self, stage: int, row: int, col: int) -> np.ndarray:
        """Encoding filters of one position of a stage (from 0), as they are stored.

        Returns
        -------
        (krow, kcol, map in, map)
        """
        plan = self.network.stages[stage]
        j, above = divmod(row, plan.filter.tile)
        return plan.filter.unpack_row(self.parameters[f"{plan.name}/encode"], j)[above, col]
