"""The command ``hpclcae experiment kmeans``: Table 2, k-means on small images."""
import argparse

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import positive
from hpclcae.commands.examination import add_examination, add_rival, examine_rivals
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import rivals
from hpclcae.experiments.neurons import Examination
from hpclcae.utils.errors import require


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_rival(parser)
    parser.add_argument("--centroids", type=positive, default=1000,
                        help="how many (%(default)s; the paper: 30,000)")
    parser.add_argument("--images", type=positive, default=20_000,
                        help="training images that are held in memory, at most (%(default)s)")
    add_examination(parser)


def run(args: argparse.Namespace) -> None:
    """Train and judge it."""
    require("sklearn.cluster", "kmeans", "k-means")

    def train(_: Model, images: Dataset, __: Examination) -> list[rivals.Rival]:
        return [rivals.train_kmeans(images, args.centroids, args.images, args.batch, args.seed)]
    examine_rivals("kmeans", "Table 2: k-means on small images", args, train)
