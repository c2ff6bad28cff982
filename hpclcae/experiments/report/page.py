"""The report: one self-contained HTML page about a run."""
import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hpclcae import __version__
from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import results, turning_heads
from hpclcae.experiments.invariance import FACES
from hpclcae.experiments.labelled_images import LabelledImages
from hpclcae.experiments.made_from import require_same
from hpclcae.experiments.neurons import (Settings, labelled_images, open_fitting, run_folder)
from hpclcae.experiments.report import sections
from hpclcae.experiments.report.atlas_page import atlas_data
from hpclcae.experiments.report.sections import Missing
from hpclcae.experiments.scan import Neuron
from hpclcae.experiments.turning_heads import SCANNED, Head
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import check_output, replacing
from hpclcae.utils.text import printable

MARK = '<meta name="generator" content="hpclcae report'
LARGEST = 15_000_000  # bytes of a page
NEURONS = 96          # of a stage, in the atlas, at most
FOLDED = 12           # rows: a longer table of numbers is folded


@dataclass(frozen=True)
class Request:
    """What is asked for."""
    run: str
    test: str | None = None        # where the test images are; None: where the neurons were tested
    neurons: int = NEURONS         # of a stage, in the atlas; 0: no atlas
    named: tuple[str, ...] = ()    # neurons that the atlas has in any case, STAGE/ROW,COL,MAP
    sources: Path | None = None    # what data fetch filled: heads that turn; None: see find_sources
    command: str = ""              # that makes the page again


def check_page(file: Path) -> None:
    """See, before the work, that the page can be written and replaces only a report.

    Raises
    ------
    InputError
        It cannot, or would replace something else.
    """
    def is_ours(path: Path) -> bool:
        with path.open("rb") as content:
            return MARK.encode() in content.read(4096)
    check_output(file, is_ours, "a report (hpclcae report)")


def write(request: Request, file: Path) -> list[str]:
    """Write the page; return a line for everything that it lacks.

    Raises
    ------
    InputError
        An extra is missing; there is no such run, test set or neuron; the page cannot be written.
    """
    check_page(file)
    require("jinja2", "report", "a report")
    require("PIL.Image", "report", "the pictures of a report")
    missing = Missing()
    content = render(request, missing).encode("utf-8", "backslashreplace")
    if len(content) > LARGEST:
        raise InputError(f"the page would have {len(content):,} bytes, and readers expect at most "
                         f"{LARGEST:,}: --neurons fewer than {request.neurons}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        partial.write_bytes(content)
    return missing.lines


def render(request: Request, missing: Missing) -> str:
    """The text of the page."""
    run, folder = request.run, run_folder(request.run)
    model = Model.load(run)
    named = [Neuron.parse(text, model) for text in request.named]
    with ExitStack() as stack:
        found, neurons = _results(run, model, missing)
        test = _test_set(request, model, neurons, missing, stack)
        atlas = None
        if neurons is not None and test is not None and request.neurons:
            heads = _heads(request, test, missing)
            try:
                images = _labelled(request, test, neurons, found)
                atlas = atlas_data(model, test, images, neurons["stages"], request.neurons, named,
                                   heads)
            except InputError as error:
                if request.test:
                    raise
                missing.add("Atlas", error)
        figures = dict(sections.figures(run, str(test.path) if test else None, missing))
        made = sections.experiments(run, model, missing)
        try:
            parallel = sections.parallel_table(folder)
        except InputError as error:
            parallel = None
            missing.add("Table of ranks", error)
        values = {
            "name": printable(folder.resolve().name), "version": __version__,
            "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "headline": sections.headline(found["rows"], printable(str(found["concept"])))
            if found else "",
            "facts": sections.facts(folder, model, missing),
            "layers": sections.layer_table(model.config, model),
            "neurons": sections.neurons_table(found) if found else None,
            "test": _about(test), "atlas": atlas,
            "experiments": made, "figures": figures, "parallel": parallel,
            "configuration": sections.configuration_text(model),
            "commands": sections.reproduce(run, folder, model, found, made, request.command),
            "provenance": sections.provenance(model, found, test), "step": model.step}
    return template().render(**values, missing=missing.lines)


def _results(run: str, model: Model, missing: Missing
             ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """neurons.json and neurons.h5."""
    found = neurons = None
    try:
        found = sections.read_rows(run_folder(run), model)
    except InputError as error:
        missing.add("Table of single neurons", error)
    try:
        neurons = results.read_neurons(run, model)
    except InputError as error:
        missing.add("Atlas and figures of neurons", error)
    return found, neurons


def _test_set(request: Request, model: Model, neurons: dict[str, Any] | None, missing: Missing,
              stack: ExitStack) -> Dataset | None:
    """Open the test set; one that was named has to be there and to be that of the results."""
    path = request.test or (str(neurons["test"]) if neurons else model.config.data.test)
    try:
        test = stack.enter_context(open_fitting(path, model.config))
        if neurons is not None:
            require_same(neurons.get("test_fingerprint"), test.fingerprint, "neurons.h5",
                         f"test set than {path}", f"hpclcae neurons {request.run} --test {path} "
                         "writes it again")
    except InputError as error:
        if request.test:
            raise
        missing.add("Atlas and pictures of the test set", f"{error} (--test SET names it)")
        return None
    return test


def _labelled(request: Request, test: Dataset, neurons: dict[str, Any],
              found: dict[str, Any] | None) -> LabelledImages:
    """The labelled images in the halves with which the neurons were tested."""
    return labelled_images(test, Settings(seed=sections.seed_of(found),
                                          development=neurons.get("halves") == "development"))


def _heads(request: Request, test: Dataset, missing: Missing) -> dict[str, list[Head]]:
    """The heads that turn in the atlas, if what they are drawn from is there; see `curves`."""
    sources, heads = turning_heads.find_sources(request.sources, test.path), {}
    try:
        heads[""] = turning_heads.rendered_heads(sources, FACES, 0)
        heads[SCANNED] = turning_heads.scanned_heads(sources)
    except InputError as error:
        missing.add("Heads that turn, in the atlas", error)
        return heads
    if not heads[""]:
        missing.add("Heads that turn, in the atlas", "the mesh that they are rendered from is not "
                    f"in {sources or Path(test.path).parent / 'sources'}: hpclcae data fetch --out "
                    "FOLDER brings it, and --sources FOLDER names it")
    return heads


def _about(test: Dataset | None) -> str:
    if test is None:
        return ""
    return f"{test.count:,} images, {test.path}; framing: {test.framing}"


def template() -> Any:
    """The page's template, which escapes everything that it is given."""
    jinja2 = require("jinja2", "report", "a report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpclcae.experiments.report"), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["json"] = as_json
    environment.globals |= {"is_numeric": is_numeric, "is_curve": is_curve}
    return environment.get_template("page.html")


def as_json(value: object) -> Any:
    """JSON that may stand inside a script element."""
    markup = require("markupsafe", "report", "a report")
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return markup.Markup(re.sub("[<>&']", lambda found: f"\\u{ord(found.group()):04x}", text))


def is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column has numbers alone, or what begins with one, and is aligned to the right."""
    return column > 0 and _numbers([row[column] for row in rows])


def is_curve(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table is a long series of numbers, which the page folds."""
    return len(rows) > FOLDED and _numbers([row[0] for row in rows])


def _numbers(cells: Sequence[str]) -> bool:
    said = [cell for cell in cells if cell]
    return bool(said) and all(re.match(r"[-+([<>]*\d", cell) for cell in said)
