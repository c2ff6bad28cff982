"""What a report says of a run beside the atlas: facts, tables, figures, and what is missing."""
import base64
import io
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpclcae import config as configuration
from hpclcae.checkpoint.trained import Model
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import record
from hpclcae.experiments.figures import drawings, read_metrics
from hpclcae.experiments.made_from import require_same, weights_fingerprint
from hpclcae.experiments.replica_figures import is_server, read_parallel
from hpclcae.experiments.report.sprites import require_picture
from hpclcae.geometry import pixels_seen
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import SVG_MARK
from hpclcae.utils.provenance import versions
from hpclcae.utils.reading import reading, whole_json
from hpclcae.utils.text import printable

MOST_RANKS = 40  # of a job, that are listed one by one
#: Largest picture of an experiment that goes into the page, bytes.
LARGEST = 1_500_000


@dataclass(frozen=True)
class Table:
    """Cells are text; what begins like a number is aligned to the right by the page."""
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    strong: int | None = None  # the row to look at


@dataclass(frozen=True)
class Picture:
    """A figure as data URI."""
    title: str
    uri: str
    caption: str
    alt: str
    plain: bool = False  # lines on white: the page may turn it dark


@dataclass(frozen=True)
class Experiment:
    """What an experiment left: parts are tables, pictures and texts in the order of reading."""
    name: str
    title: str
    command: str
    said: str      # when, on what
    parts: Sequence[Table | Picture | str]


@dataclass
class Missing:
    """What the page lacks, each with the command that makes it."""
    _whats: dict[str, list[str]] = field(default_factory=dict)  # why it is missing: what

    def add(self, what: str, why: object) -> None:
        """Remember and go on."""
        whats = self._whats.setdefault(str(why), [])
        if what not in whats:
            whats.append(what)

    @property
    def lines(self) -> list[str]:
        """A line for every reason."""
        return [f"{', '.join(whats)}: {why}" for why, whats in self._whats.items()]


#: Figures of `hpclcae figures`: what they show, and what a reader who cannot see them should know.
FIGURES = {
    "objective": ("Training curves", "The objective and its parts over the steps of the first "
                  "replica, mean over a minibatch; the root mean square of the responses (a "
                  "collapse shows there), learning rate and images per second.", True),
    "replicas": ("Replicas and servers", "Objectives of all replicas against steps and time; how "
                 "many updates others made between fetch and push (staleness); time spent waiting; "
                 "bytes sent; processor time of every rank.", True),
    "filters": ("Filters of the first stage", "All maps at evenly spread positions. Grey is zero, "
                "white positive, black negative, each filter by its own scale. They see whitened "
                "pixels.", False),
    "positions": ("Where selective neurons sit", "Accuracy of the best map at each position, "
                  "chosen and judged on all test images (the paper's measure, which is "
                  "optimistic).", False),
    "histogram": ("Responses of the best neuron of each stage", "Responses to images with the "
                  "concept and to the rest, each in percent of its kind; the dashed line is the "
                  "threshold.", True),
    "means": ("What the strongest images have in common", "Means of the test images with the "
              "highest response, beside those of all images. Each image counts with mean 0 and "
              "deviation 1.", False),
    "stimuli": ("The strongest test images", "The 48 test images with the highest response of the "
                "best neurons, in rows from the highest; the colour of the frame says what they "
                "show.", False)}


def headline(rows: Sequence[dict[str, Any]], concept: str) -> str:
    """The result in a sentence, from the rows of neurons.json."""
    trained = [row for row in rows if row["name"].startswith("trained")]
    chance = next((row for row in rows if row["name"] == "chance"), None)
    if not trained:
        return ""
    top = trained[-1]
    honest = top["honest"] is not None
    value, bounds = ((top["honest"], top["honest_interval"]) if honest
                     else (top["accuracy"], top["accuracy_interval"]))
    chosen = ("neuron and threshold chosen on one half of the test set, judged on the other"
              if honest else "neuron and threshold chosen and judged on the same test images, "
              "which is optimistic")
    against = ""
    if chance:
        share = chance["honest" if honest else "accuracy"]
        against = f" Always giving the more frequent answer is right in {percent(share)}\u00a0%."
    return (f"One threshold on one neuron of the top stage tells '{concept}' from the rest in "
            f"{percent(value)}\u00a0% of test images{_between(bounds)}: {chosen}."
            f"{against}")


def percent(share: float | None) -> str:
    """A share in percent, "" where it is not known."""
    return "" if share is None else f"{100 * share:.1f}"


def _between(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else (f" (95\u00a0% interval {percent(bounds[0])} to "
                                      f"{percent(bounds[1])})")


def read_rows(folder: Path, model: Model) -> dict[str, Any]:
    """Read neurons.json of a run.

    Raises
    ------
    InputError
        It is missing, damaged, or about other weights.
    """
    file = folder / "neurons.json"
    command = shlex.join(["hpclcae", "neurons", str(folder)])
    if not file.is_file():
        raise InputError(f"there is no {file}: {command} writes it")
    with reading(file, "results of neurons", f"{command} writes it again"):
        found = dict(whole_json(file.read_text(encoding="utf-8")))
        neurons_table(found), headline(found["rows"], str(found["concept"])), seed_of(found)
    require_same(found.get("weights_fingerprint"), weights_fingerprint(model), file,
                 f"network than {model.path}", f"{command} writes it again")
    return found


def seed_of(found: dict[str, Any] | None) -> int:
    """The seed with which neurons were tested, by neurons.json; 0 where it does not say."""
    said = found.get("settings") if found else None
    return int(said.get("seed", 0)) if said else 0


def neurons_table(found: dict[str, Any]) -> Table:
    """The table of single neurons and what they have to beat."""
    honest = any(row["honest"] is not None for row in found["rows"])
    key = "honest" if honest else "accuracy"
    columns = ["", "held out, %" if honest else "right, %", "95 % interval", "AUC, %", "among",
               "best of 20, %", "paper, faces, %"]
    rows = []
    for row in found["rows"]:
        paper = row.get("paper_faces")
        bounds = row[f"{key}_interval"]
        recalled = "" if not paper or paper["status"] == "confirmed" else " (recalled)"
        rows.append([row["name"], percent(row[key]),
                     "" if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}",
                     percent(row["auc"]),
                     f"{row['candidates']:,}" if row["candidates"] else "",
                     percent(row["accuracy"]), f"{paper['percent']}{recalled}" if paper else ""])
    trained = [number for number, row in enumerate(found["rows"])
               if row["name"].startswith("trained")]
    notes = [*(["Held out: neuron and threshold chosen on the development half, judged on the "
                "final half."] if honest else [f"Nothing is held out: {found['why_not_honest']}."]),
             "Best of 20: the paper's measure; neuron and threshold chosen on the images that "
             "judge them. Among: so many candidates.",
             f"Intervals resample the {found['resampled']} of the test set; another training seed "
             "changes a best neuron by some points more.",
             "The paper's figures are of its own 37,000 images: context, no comparison. 'Recalled' "
             "ones could not be confirmed in a second source."]
    return Table(f"Single neurons, concept '{printable(str(found['concept']))}'", columns, rows,
                 notes, trained[-1] if trained else None)


def experiments(run: str, model: Model, missing: Missing) -> list[Experiment]:
    """What experiments left in the run; those that are missing are named with their command."""
    found, refused = record.records(run, model)
    for line in refused:
        missing.add("Experiment", line)
    gone = [name for name in record.ORDER
            if not (record.experiments_folder(run) / f"{name}.json").exists()]
    if gone:
        command = shlex.join(["hpclcae", "experiment", "all", run])
        missing.add(f"Experiments ({', '.join(gone)})",
                    f"{command} makes them, and says what each needs")
    return [_experiment(record.experiments_folder(run), each, missing) for each in found]


def _experiment(folder: Path, found: dict[str, Any], missing: Missing) -> Experiment:
    parts: list[Table | Picture | str] = []
    for part in found["parts"]:
        if part["type"] == "table":
            parts.append(Table(str(part["title"]), [str(column) for column in part["columns"]],
                               [["" if cell is None else str(cell) for cell in row]
                                for row in part["rows"]], [str(note) for note in part["notes"]]))
        elif part["type"] == "figure":
            try:
                parts.append(Picture("", _embedded(folder, part), str(part["caption"]),
                                     str(part["alt"])))
            except InputError as error:
                missing.add(f"A figure of '{found['experiment']}'", error)
        else:
            parts.append(part["text"])
    said = [f"{found['made'][:16].replace('T', ' ')} UTC", f"{found['seconds']:.0f} s"]
    if found["frames"]:
        said.append(f"images: {found['frames']}" + (f" ({found['framing']})" if found["framing"]
                                                    else ""))
    return Experiment(str(found["experiment"]), str(found["title"]), str(found["command"]),
                      "; ".join(said), parts)


def _embedded(folder: Path, part: dict[str, Any]) -> str:
    """The figure of an experiment: as SVG if that is not large, else as PNG.

    Raises
    ------
    InputError
        Neither is there, or one is damaged.
    """
    for name, kind in ((part["svg"], "svg+xml"), (part["file"], "png")):
        path = folder / Path(str(name)).name  # never outside the folder
        if path.is_file() and path.stat().st_size <= LARGEST:
            with reading(path, "a figure", "remove it and make the experiment again"):
                content = path.read_bytes()
                require_picture(content)
                return _uri(content, kind)
    raise InputError(f"{part['file']} is not in {folder}, or larger than {LARGEST:,} bytes: make "
                     "the experiment again")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def figures(run: str, test: str | None, missing: Missing) -> Iterator[tuple[str, Picture]]:
    """Draw the figures of `hpclcae figures`: name and picture."""
    try:
        require("matplotlib", "figures", "drawing")
    except InputError as error:
        missing.add("Figures", error)
        return
    drawn = drawings(run, test)
    for name in sorted(drawn, key=lambda name: (
            list(FIGURES).index(name[:-4]) if name[:-4] in FIGURES else len(FIGURES))):
        try:
            uri = _svg(drawn[name])
        except InputError as error:
            missing.add(f"Figure {name}", error)
            continue
        title, caption, is_plain = FIGURES.get(name[:-4], (name[:-4], "", False))
        yield name[:-4], Picture(title, uri, caption, f"{title}. {caption}", is_plain)


def _svg(draw: Callable[[], Any]) -> str:
    from matplotlib import rc_context
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "report", "svg.fonttype": "path"}):
        draw().savefig(content, format="svg", metadata=SVG_MARK)
    return _uri(content.getvalue(), "svg+xml")


def layer_table(config: Config, model: Model) -> Table:
    """The stages and their sizes."""
    def shape(sizes: Sequence[int]) -> str:
        return " x ".join(map(str, sizes))
    rows = []
    for number, (stage, geometry, seen) in enumerate(zip(
            config.stages, model.network.layout.geometry, pixels_seen(config)), start=1):
        between = [word for word, used in (
            ("logarithm", stage.log), ("standardised", stage.standardise),
            (f"contrast normalisation {stage.lcn}x{stage.lcn}", stage.lcn),
            ("contrast of the image", stage.contrast),
            (f"{stage.whiten} white directions", stage.whiten)) if used]
        seen = min(seen, config.data.size)
        rows.append([f"stage {number}", shape(geometry.input),
                     f"{stage.receptive_field} x {stage.receptive_field}, {stage.maps} maps",
                     f"{stage.pooling} x {stage.pooling}", shape(geometry.output),
                     f"{seen} x {seen}", f"{geometry.parameters:,}",
                     ", ".join(between) or "-"])
    return Table("The network", ["", "input", "filters", "pooling", "neurons", "pixels seen",
                                 "weights", "then"], rows,
                 ["Sizes are rows x columns x maps. Every position has filters of its own."])


def parallel_table(folder: Path) -> Table | None:
    """Time and staleness of every rank; None for a run without servers.

    Raises
    ------
    InputError
        What the ranks said is damaged.
    """
    if not (folder / "parallel.json").exists():
        return None
    ranks = read_parallel(folder)
    rows = []
    for rank in ranks[:MOST_RANKS]:
        counts = rank["staleness"]
        pushes = sum(counts)
        mean = f"{sum(n * count for n, count in enumerate(counts)) / pushes:.2f}" if pushes else ""
        row = [rank["role"], f"{rank['seconds']:.1f}",
               f"{100 * rank['cpu_seconds'] / max(rank['seconds'], 1e-9):.0f}", "", "", "", "",
               mean]
        if not is_server(rank):
            steps = max(1, rank["steps"])
            row[3:7] = [f"{rank['steps']:,}",
                        f"{100 * rank['wait_seconds'] / max(rank['training_seconds'], 1e-9):.1f}",
                        f"{rank['fetched_bytes'] / steps / 1e6:.2f}",
                        f"{rank['pushed_bytes'] / steps / 1e6:.2f}"]
        rows.append(row)
    notes = [f"Transport: {ranks[0]['transport']}. Staleness: updates by others between fetch and "
             "push of a chunk, mean; counted by servers, or by workers where they add by "
             "themselves."]
    if len(ranks) > MOST_RANKS:
        notes.append(f"The first {MOST_RANKS} of {len(ranks):,} ranks; parallel.json has all.")
    return Table("Ranks of the newest job", ["rank", "seconds", "processor, %", "steps",
                                             "waiting, %", "MB fetched a step", "MB pushed a step",
                                             "staleness"], rows, notes)


def duration(seconds: float) -> str:
    """Seconds in words: 4 min 17 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    days, rest = divmod(whole, 86400)
    return (f"{days} d " if days else "") + f"{rest // 3600} h {rest % 3600 // 60} min"


def facts(folder: Path, model: Model, missing: Missing) -> list[tuple[str, str]]:
    """What was trained and how long, as names and values."""
    config = model.config
    said = [("Images", f"{config.data.size} x {config.data.size} pixels, "
             f"{'grey' if config.data.channels == 1 else 'colour'}: {config.data.train}")]
    try:
        with Dataset(config.data.train) as train:
            said[0] = ("Images", f"{train.count:,} of {said[0][1]}")
            if train.recipe:
                said.append(("Framing of the training images", train.framing))
    except InputError as error:
        missing.add("Facts about the training images", error)
    said.append(("Training", f"{config.train.gradient}, {config.update.rule}, rate "
                 f"{config.update.rate:g}, minibatches of {config.train.batch}, seed "
                 f"{config.train.seed}; no labels"))
    try:
        last = read_metrics(folder)[-1]
        said.append(("Time", f"{duration(last['seconds'])} of training to step {last['step']:,}"))
    except InputError as error:
        missing.add("Time of training", error)
    parallel = config.parallel
    said.append(("Workers", "one process" if not parallel.servers and parallel.grid == "1x1" else
                 f"replicas: {parallel.replicas}, each on a grid of {parallel.grid}; servers: "
                 f"{parallel.servers}; {parallel.consistency}"))
    weights = sum(stage.parameters for stage in model.network.layout.geometry)
    said.append(("Weights", f"{weights:,} learned, in {len(config.stages)} stages"))
    said.append(("Checkpoint", f"{model.path}, step {model.step:,} of {config.train.steps:,}"))
    return said


def reproduce(run: str, folder: Path, model: Model, found: dict[str, Any] | None,
              made: Sequence[Experiment], command: str) -> list[str]:
    """The command lines that make the run and this page again."""
    train = "launch" if model.config.parallel.servers else "train"
    lines = [shlex.join(["hpclcae", train, str(folder / "configuration.toml"), "--out",
                         f"{folder}-again"])]
    if found is not None:
        lines.append(shlex.join(["hpclcae", "neurons", run, "--test", str(found.get("test"))]))
    return [*lines, *(each.command for each in made), command]


def provenance(model: Model, found: dict[str, Any] | None, test: Dataset | None
               ) -> list[tuple[str, str]]:
    """Versions and fingerprints."""
    said = [("weights", weights_fingerprint(model))]
    if test is not None:
        said.append((f"test set {test.path}", test.fingerprint))
    said += [(f"{name} (this page)", version) for name, version in versions().items()]
    if found is not None and isinstance(found.get("versions"), dict):
        said += [(f"{name} (neurons.json)", str(version))
                 for name, version in found["versions"].items()]
    return said


def configuration_text(model: Model) -> str:
    """The configuration of the checkpoint as TOML."""
    return configuration.dumps(model.config)
