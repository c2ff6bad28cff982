"""Figures: what is drawn is what is in the files of a run."""
import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from hpclcae import cli  # noqa: E402
from hpclcae.checkpoint.trained import Model  # noqa: E402
from hpclcae.data.dataset import Dataset  # noqa: E402
from hpclcae.experiments import figures  # noqa: E402
from hpclcae.experiments.results import read_neurons  # noqa: E402
from hpclcae.utils.errors import InputError  # noqa: E402
from tests.support.images import write_dataset  # noqa: E402
from tests.support.tiny_run import write_images, write_parallel, write_run  # noqa: E402


@pytest.fixture(scope="module", params=[1, 3])
def examined(request, tmp_path_factory):
    """A run, grey or colour, on which ``hpclcae neurons`` has been called."""
    run = write_run(tmp_path_factory.mktemp("figures"), channels=request.param)
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "0", "--random-seeds",
                     "0"]) == 0
    return run


def test_every_figure_carries_run_step_and_subject(examined):
    neurons = read_neurons(str(examined))
    for figure in (figures.draw_filters(Model.load(examined), "name"),
                   figures.draw_objective(figures.read_metrics(examined), "name"),
                   figures.draw_histograms(neurons, "name"),
                   figures.draw_stimuli(neurons, None, "name"),
                   figures.draw_positions(neurons, "name")):
        assert figure.get_suptitle().startswith("name, step 20: ")


def test_another_test_set_than_the_neurons_saw_is_refused(examined, tmp_path):
    write_images(tmp_path / "other.h5", 30, labels=True)
    with pytest.raises(InputError, match="holds 30 images, the neurons were tested with 120"):
        figures.draw_stimuli(read_neurons(str(examined)), str(tmp_path / "other.h5"), "name")


def test_another_test_set_of_the_same_size_is_refused(examined, tmp_path):
    write_images(tmp_path / "other.h5", 120, labels=True, seed=9,
                 channels=Model.load(examined).config.data.channels)
    with pytest.raises(InputError, match="neurons.h5 was made from another test set than .*other"):
        figures.draw_stimuli(read_neurons(str(examined)), str(tmp_path / "other.h5"), "name")


def test_metrics_survive_a_crash_and_a_resume(tmp_path):
    lines = [{"step": step, "objective": objective, "seconds": 1.0}
             for step, objective in ((10, 5.0), (20, 4.0), (20, 3.0), (15, 4.5))]
    text = "\n".join(map(json.dumps, lines)) + '\n[1]\n{"step": 30, "obj'
    (tmp_path / "metrics.jsonl").write_text(text)
    read = figures.read_metrics(tmp_path)
    found = [(record["step"], record["objective"]) for record in read]
    assert found == [(10, 5.0), (15, 4.5), (20, 3.0)]
    (tmp_path / "metrics.jsonl").write_text('{"st')
    with pytest.raises(InputError, match="has no metrics"):
        figures.read_metrics(tmp_path)


def test_curves_show_what_was_measured_and_gaps_where_a_stage_was_not_trained():
    trained = {"reconstruction": 3.0, "sparsity": 0.0, "response": 0.5}
    metrics = [{"step": 1, "objective": 3.0, "stages": [trained, None], "rate": 0.1,
                "images_per_second": 9.0},
               {"step": 2, "objective": -1.0,
                "stages": [trained, {**trained, "reconstruction": 2.0}], "rate": 0.1}]
    panels = {axes.get_title(): axes for axes in figures.draw_objective(metrics, "name").axes}
    first, second = panels["reconstruction error"].lines
    assert first.get_ydata().tolist() == [3, 3]
    assert np.isnan(second.get_ydata()[0]) and second.get_ydata()[1] == 2
    assert panels["reconstruction error"].get_yscale() == "log"
    # 0 and less have no log
    assert panels["sparsity"].get_yscale() == panels["objective"].get_yscale() == "linear"
    assert np.isnan(panels["images per second"].lines[0].get_ydata()[1])


@pytest.mark.parametrize("shape", [(2, 3, 4, 4, 1, 8), (30, 40, 5, 5, 3, 4), (1, 1, 3, 3, 1, 7),
                                   (5, 4, 3, 3, 1, 1)])
def test_the_mosaic_shows_each_filter_at_its_place_scaled_about_grey(shape):
    weights = np.random.default_rng(0).standard_normal(shape)
    weights[0, 0, ..., 0] = 0  # a dead filter is grey
    pixels, rows, cols, block = figures.filter_mosaic(weights)
    assert rows[0] == cols[0] == 0 and rows[-1] == shape[0] - 1 and cols[-1] == shape[1] - 1
    assert pixels.min() >= 0 and pixels.max() <= 1
    side, seen = shape[2], 0
    for y, row in enumerate(rows):
        for x, col in enumerate(cols):
            place = pixels[y * block[0]:(y + 1) * block[0], x * block[1]:(x + 1) * block[1]]
            across = (block[1] - 2) // (side + 1)
            for map_ in range(shape[-1]):
                top, left = map_ // across * (side + 1), map_ % across * (side + 1)
                filter_ = weights[row, col, ..., map_]
                expected = 0.5 + 0.5 * filter_ / max(np.abs(filter_).max(), 1e-300)
                assert np.allclose(place[top:top + side, left:left + side], expected, atol=1e-12)
                seen += 1
    assert seen == rows.size * cols.size * shape[-1] <= 2 * figures.FILTERS_ACROSS ** 2
    assert (pixels == 0.5).all(axis=2).sum() >= side * side


def test_stimuli_stand_in_rows_and_their_frames_say_what_they_show():
    images = np.random.default_rng(0).integers(0, 256, (10, 6, 6, 1), np.uint8)
    concept = np.arange(10) % 2 == 0
    pixels, share = figures.stimulus_mosaic(images, concept)
    assert share == 0.5
    frame, step = 2, 6 + 2 * 2 + 2
    for number in range(10):
        top, left = number // 8 * step, number % 8 * step
        assert np.array_equal(pixels[top + frame:top + frame + 6, left + frame:left + frame + 6],
                              np.repeat(images[number], 3, axis=2))
        colour = "#%02x%02x%02x" % tuple(pixels[top, left])
        assert colour == (figures.CONCEPT if concept[number] else figures.OTHER)
    assert (pixels[step:, 2 * step:] == 255).all()


def test_histograms_hold_every_image_and_the_threshold_is_an_edge(examined):
    neurons = read_neurons(str(examined))
    figure = figures.draw_histograms(neurons, "name")
    for axes, stage in zip(figure.axes, neurons["stages"]):
        best = stage["best"]
        share = (best["threshold"] - best["minimum"]) / (best["maximum"] - best["minimum"])
        place = share * figures.HISTOGRAM_BINS
        assert place == pytest.approx(round(place), abs=1e-9)
        sums = [patch.get_data().values.sum() for patch in axes.patches]
        assert sums == pytest.approx([100, 100])
        assert f"{100 * best['accuracy']:.1f} % right" in axes.get_title()
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "final half" in figure.get_suptitle()
    best = neurons["stages"][0]["histogram"].sum(axis=1)
    assert labels[:2] == [f"the rest ({best[0]})", f"face ({best[1]})"]
    assert sum(best) < 107  # those with a label


def test_positions_show_the_best_map(examined):
    neurons = read_neurons(str(examined))
    figure = figures.draw_positions(neurons, "name")
    for axes, stage in zip(figure.axes, neurons["stages"]):
        assert np.allclose(axes.images[0].get_array(), 100 * stage["accuracy"].max(axis=2))


# ---- runs with parameter servers -----------------------------------------------------------------

def panels_of(figure):
    return {axes.get_title().split(",")[0]: axes for axes in figure.axes}


@pytest.mark.parametrize("transport, pushes", [("messages", 16), ("rma", 32)])
def test_replicas_are_drawn_as_they_worked(tmp_path, transport, pushes):
    run = write_run(tmp_path)
    write_parallel(run, transport=transport)
    figure = figures.draw_parallel_run(run, "name")
    assert figure.get_suptitle() == ("name, step 20: replicas: 2, blocks of each: 2, servers: 2, "
                                     f"transport: {transport}")
    panels = panels_of(figure)
    for axes, expected in ((panels["objective against the replica's step"], [5, 10, 15, 20]),
                           (panels["objective against the seconds of training"],
                            [0.5, 1.0, 1.5, 2.0])):
        assert [list(line.get_xdata()) for line in axes.lines] == [pytest.approx(expected)] * 2
        assert [line.get_ydata()[-1] for line in axes.lines] == [4.5, 14.5]
        assert axes.get_yscale() == "log"
    staleness = panels["staleness of the gradients"]
    assert [bar.get_height() for bar in staleness.patches] == [0, 75, 25]
    assert staleness.get_title().endswith("mean 1.25")
    assert f"percent of {pushes} pushes" in staleness.get_ylabel()
    waits = panels["time that workers waited for parameters"]
    assert [bar.get_height() for bar in waits.patches] == [25, 25, 37.5, 37.5]
    labels = [label.get_text() for label in waits.get_xticklabels()]
    assert labels == ["r0 b0", "r0 b1", "r1 b0", "r1 b1"]
    sent = panels["sent between workers and servers"]
    assert [bar.get_height() for bar in sent.patches] == [2.0] * 4 + [1.0] * 4
    times = panels["processor time of every rank"]
    assert [bar.get_height() for bar in times.patches] == [90] * 4 + [0] * 6 + [15] * 2
    assert [label.get_text() for label in times.get_xticklabels()][-2:] == ["s0", "s1"]


def test_many_ranks_stay_readable(tmp_path):
    run = write_run(tmp_path)
    write_parallel(run, [(r, b) for r in range(24) for b in range(4)], servers=12)
    panels = panels_of(figures.draw_parallel_run(run, "name"))
    times = panels["processor time of every rank"]
    labels = [label.get_text() for label in times.get_xticklabels()]
    assert len(labels) <= 16 and labels[:2] == ["r0 b0", "r1 b3"] and len(times.patches) == 2 * 108
    assert panels["objective against the replica's step"].get_legend() is None


def test_a_mean_image_counts_every_image_alike(tmp_path):
    g = np.random.default_rng(0)
    images = g.integers(0, 256, (7, 6, 6, 1), np.uint8)
    images[2] = 9  # a flat one adds nothing
    write_dataset(tmp_path / "test.h5", images)
    chosen = np.array([5, 2, 0, 3])
    expected = np.zeros((6, 6, 1))
    for index in chosen:
        image = images[index].astype(float) - images[index].mean()
        expected += image / (image.std() or 1)
    with Dataset(tmp_path / "test.h5") as test:
        for portion in (2, 500):
            np.testing.assert_allclose(figures.mean_image(test, chosen, portion), expected / 4,
                                       atol=1e-12)
