"""What is in a dataset, in words and on a contact sheet."""
from collections import Counter
from pathlib import Path

import numpy as np

from hpclcae.data.dataset import Dataset
from hpclcae.data.minibatches import sample
from hpclcae.data.halves import HALF_NAMES, HALVES
from hpclcae.utils.errors import require
from hpclcae.utils.files import PNG_MARK, replacing
from hpclcae.utils.tables import summed, table

LISTED = 20                    # sources, or parts of a setting, that are printed
SAMPLE = 2000                  # images for mean and standard deviation
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
CELL_MIN, CELL_MAX = 64, 160   # pixels of an image on the contact sheet
CAPTION = 14                   # pixels below it


def describe(dataset: Dataset, seed: int) -> str:
    """Everything about a dataset, from its size and sources to its settings.

    Parameters
    ----------
    dataset : Dataset
    seed : int
        Of the sample of images that mean and standard deviation are taken over.
    """
    shards = f" and {len(dataset.shards)} shards" if dataset.shards else ""
    lines = [f"{dataset.path}: {dataset.count} images, {dataset.rows} x {dataset.cols} pixels, "
             f"{'colour' if dataset.channels == 3 else 'grey'}, "
             f"{dataset.bytes / 1e6:.1f} MB{' in its index' if shards else ''}{shards}",
             f"written {dataset.created} by hpclcae {dataset.versions.get('hpclcae')}, "
             f"chunks of {' x '.join(map(str, dataset.chunks))} (image, row, col, channel)",
             f"fingerprint {dataset.fingerprint}", ""]
    groups = Counter(dataset.groups)
    images, groups_of = Counter[str](), Counter[str]()
    for group, count in groups.items():
        source = group.partition("/")[0]
        images[source] += count
        groups_of[source] += 1
    rows: list[tuple[object, ...]] = [
        (source, count, groups_of[source], dataset.licences.get(source, "not stated"))
        for source, count in images.most_common(LISTED)]
    if more := len(images) - len(rows):
        rest = images.most_common()[LISTED:]
        rows.append((f"{more} more sources", sum(count for _, count in rest),
                     sum(groups_of[source] for source, _ in rest), ""))
    lines += [table(("source", "images", "groups", "licence"), rows), "",
              f"groups (persons or photographs): {len(groups)}, of {min(groups.values())} to "
              f"{max(groups.values())} images, median {np.median(list(groups.values())):g}"]
    if dataset.labels is None:
        lines.append("labels: none")
    else:
        lines += ["", *_classes(dataset, dataset.labels, dataset.label_names or [])]
    lines += _more(dataset)
    return "\n".join([*lines, "", _statistics(dataset, seed), "", "settings:",
                      *(f"  {name}: {_shortened(value)}"
                        for name, value in dataset.settings.items())])


def _classes(dataset: Dataset, labels: np.ndarray, names: list[str]) -> list[str]:
    """How many images each class has, and how far classes and their halves are balanced."""
    parts = {"images": np.ones(dataset.count, bool)}
    if dataset.half is not None:
        parts |= {name: dataset.half == half for half, name in enumerate(HALF_NAMES)}
    counts = np.stack([np.bincount(labels[part] + 1, minlength=len(names) + 1)
                       for part in parts.values()], axis=1)
    rows = [(label, name, *count, f"{count[0] / dataset.count:.1%}") for label, name, count
            in zip(range(-1, len(names)), ["unknown", *names], counts.tolist())
            if label >= 0 or count[0]]
    more = ""
    if len(rows) > LISTED:
        rows.sort(key=lambda row: (-row[2], row[0]))
        more = f"(the {LISTED // 2} with most images and the {LISTED // 2} with fewest)"
        rows = rows[:LISTED // 2] + rows[-LISTED // 2:]
    columns = ("label", "name", *parts, "share")
    return [table(columns, rows), *[more] * bool(more), *_balance(names, counts[1:])]


def _balance(names: list[str], counts: np.ndarray) -> list[str]:
    """What the numbers of images of the classes, int (class, images and halves), come to."""
    images = counts[:, 0]
    if len(names) < 2 or not images.any():
        return []
    least, most = int(images.argmin()), int(images.argmax())
    share = images[images > 0] / images.sum()
    lines = [f"balance: {len(names)} classes of {images[least]} ({names[least]}) to {images[most]} "
             f"images ({names[most]}), median {np.median(images):g}; as varied as "
             f"{np.exp(-(share * np.log(share)).sum()):.1f} equal classes; always saying "
             f"{names[most]} is right in {share.max():.1%}"]
    for column, half in enumerate(HALF_NAMES[:counts.shape[1] - 1], 1):
        if lacking := [name for name, count in zip(names, counts[:, column]) if not count]:
            lines.append(f"no images in the {half} half: {summed(lacking)}; no classifier can be "
                         "trained and tested with these")
    return lines


def _shortened(value: object) -> object:
    """A setting without most of the parts of a long list or table."""
    if isinstance(value, dict):
        shown = {key: _shortened(part) for key, part in list(value.items())[:LISTED]}
        more = len(value) - LISTED
        return f"{str(shown)[:-1]}, and {more} more}}" if more > 0 else shown
    if isinstance(value, list) and len(value) > LISTED:
        return str(value[:LISTED])[:-1] + f", and {len(value) - LISTED} more]"
    return value


def _more(dataset: Dataset) -> list[str]:
    """Lines about what not every dataset has: kinds, framing, halves, pairs."""
    lines = []
    if dataset.kind is not None:
        lines += ["", table(("shows a", "images", "share"),
                            [(kind, count, f"{count / dataset.count:.1%}")
                             for kind, count in Counter(dataset.kind.tolist()).most_common()])]
    if dataset.recipe is not None:
        lines += ["", f"framing: {dataset.framing}"]
    if dataset.half is not None:
        own = [dataset.groups[dataset.half == half] for half in HALVES]
        lines += ["", table(("half", "images", "groups"),
                            [(name, groups.size, len(set(groups)))
                             for name, groups in zip(HALF_NAMES, own)])]
    if dataset.pair_count:
        lines += ["", f"pairs: {dataset.pair_count}, of {2 * dataset.pair_count} images"]
    return lines


def _statistics(dataset: Dataset, seed: int) -> str:
    """Mean and standard deviation of each channel over a sample of the images."""
    sample = _sample(dataset, SAMPLE, seed)
    images = dataset.read(sample).astype(np.float64).reshape(-1, dataset.channels)
    rows = [(name, round(float(mean), 1), round(float(std), 1)) for name, mean, std
            in zip(CHANNELS[dataset.channels], images.mean(axis=0), images.std(axis=0))]
    return (table(("channel", "mean", "std"), rows)
            + f"\n(levels of 256, over {sample.size} images)")


def _sample(dataset: Dataset, count: int, seed: int) -> np.ndarray:
    """Return sorted indices of a random sample without repeats."""
    return np.sort(sample(np.random.default_rng(seed), dataset.count, count))


def draw_sheet(dataset: Dataset, path: Path, count: int, seed: int) -> None:
    """Draw a random sample of a dataset, with number and label below each image, into a PNG file.

    Parameters
    ----------
    dataset : Dataset
    path : Path
        Replaced in a single step when it exists.
    count : int
        Images on the sheet, fewer when the dataset has fewer.
    seed : int
        Of the sample.
    """
    image_module = require("PIL.Image", "images", "drawing a contact sheet")
    draw_module = require("PIL.ImageDraw", "images", "drawing a contact sheet")
    chosen = _sample(dataset, count, seed)
    columns = int(np.ceil(np.sqrt(chosen.size)))
    rows = -(-chosen.size // columns)
    cell = min(max(dataset.size, CELL_MIN), CELL_MAX)
    methods = image_module.Resampling
    method = methods.NEAREST if dataset.size < cell else methods.LANCZOS
    sheet = image_module.new("RGB", (columns * (cell + 2), rows * (cell + CAPTION)), "white")
    draw = draw_module.Draw(sheet)
    for place, (index, image) in enumerate(zip(chosen, dataset.read(chosen))):
        left, top = place % columns * (cell + 2), place // columns * (cell + CAPTION)
        picture = image_module.fromarray(image if dataset.channels == 3 else image[:, :, 0])
        sheet.paste(picture.resize((cell, cell), method), (left, top))
        draw.text((left, top + cell), f"{index} {_label_name(dataset, int(index))}"[:cell // 6],
                  fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        mark = require("PIL.PngImagePlugin", "images", "drawing a contact sheet").PngInfo()
        for key, value in PNG_MARK.items():
            mark.add_text(key, value)
        sheet.save(partial, format="PNG", pnginfo=mark)


def _label_name(dataset: Dataset, index: int) -> str:
    """Return the name of the label of an image, in letters that every font has."""
    if dataset.labels is None or dataset.label_names is None or dataset.labels[index] < 0:
        return ""
    return dataset.label_names[dataset.labels[index]].encode("ascii", "replace").decode()
