"""The command ``hpclcae experiment autoencoders``: Table 2, deep sigmoid autoencoders."""
import argparse

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import positive, real, whole
from hpclcae.commands.examination import add_examination, add_rival, examine_rivals
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import rivals
from hpclcae.experiments.neurons import Examination


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_rival(parser)
    parser.add_argument("--layers", type=whole(1, 12), nargs="+", default=[3, 6],
                        help="layers of each autoencoder (3 6)")
    parser.add_argument("--steps", type=positive, default=1500,
                        help="minibatches that every layer is trained on (%(default)s)")
    parser.add_argument("--rate", type=real(0, 10, above=True), default=0.03,
                        help="learning rate of Adam, in units of a typical weight (%(default)s)")
    add_examination(parser)
    parser.set_defaults(batch=100)  # what an autoencoder learns from at a time, too


def run(args: argparse.Namespace) -> None:
    """Train and judge them."""
    def train(model: Model, images: Dataset, _: Examination) -> list[rivals.Rival]:
        return [rivals.train_autoencoder(images, layers, rivals.units_of(model), args.steps,
                                         args.batch, args.rate, args.seed)
                for layers in dict.fromkeys(args.layers)]
    examine_rivals("autoencoders", "Table 2: locally connected sigmoid autoencoders", args, train)
