"""The command ``hpclcae experiment categories``: a fine-tuned run beside others, its controls."""
import argparse

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.experiment import arguments
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import categories, category_results
from hpclcae.experiments.record import Record


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add(parser, "run")
    parser.add_argument("--beside", nargs="+", metavar="RUN", default=[],
                        help="other folders of hpclcae finetune on the same dataset: pretrained or "
                        "--random-weights, frozen (classifier.steps = train.steps) or not, with "
                        "other classifier.per_class and train.seed; a run's own configuration says "
                        "which it is")
    parser.add_argument("--no-pixels", action="store_true",
                        help="leave out logistic regression on pixels")
    arguments.add(parser, "out")


def why_not(model: Model) -> str:
    """Why it has nothing to say of a network; "" if it has."""
    return "" if model.categories else "there is no classifier: hpclcae finetune trains one"


def run(args: argparse.Namespace) -> None:
    """Compare results on the final half, print the tables, write them and the curve."""
    model = Model.load(args.run)
    record = Record("categories", category_results.TITLE, args.run, model, args.command_line,
                    figures=[category_results.FIGURE], out=args.out)
    found = categories.compare([args.run, *args.beside], not args.no_pixels)
    with Dataset(found.dataset) as dataset:
        record.about(dataset)
    category_results.tell(found, record)
    record.save()
