"""Fine-tuned runs and their controls: rows, paired intervals, regression on pixels, verdicts."""
import h5py
import numpy as np
import pytest

from hpclcae.checkpoint.trained import Model
from hpclcae.experiments import categories, category_results
from hpclcae.experiments.categories import FROZEN, PIXELS, TRAINED, TUNED, Comparison, Outcome
from hpclcae.experiments.record import Record, read_record
from tests.support.tiny_run import write_run

IMAGES = 400


def outcome(kind, seed, share, per_class=0):
    """A classifier that is right about a share of the images."""
    right = np.random.default_rng([seed, per_class]).random(IMAGES) < share
    return Outcome(kind, per_class, seed, right, {"top5": 0.9, "mean_by_class": share}, 100, 50)


def compared(*outcomes):
    keys = np.repeat(np.arange(IMAGES // 4, dtype=np.uint64), 4)
    return Comparison("a.h5", "f", 10, IMAGES, IMAGES // 4, 0.1, 30.0,
                      categories._rows(outcomes, keys), ((100, 50),), outcomes)


@pytest.fixture
def found():
    return compared(*(outcome(kind, seed, share + bonus, per_class)
                      for seed in range(3) for per_class in (0, 5)
                      for kind, share in ((TUNED, 0.8), (TRAINED, 0.8), (FROZEN, 0.5),
                                          (PIXELS, 0.6))
                      for bonus in [0.1 if kind == TUNED and per_class else 0.0]))


def test_seeds_are_one_row_with_an_interval_of_their_mean(found):
    row = found.find(FROZEN)
    assert row.seeds == (0, 1, 2) and row.mean == pytest.approx(np.mean(row.each))
    low, high = row.interval
    assert low < row.mean < high and high - low < 0.15
    assert found.find(("pretrained", "nothing")) is None
    assert categories.points(found) == [5, 0]


def test_differences_are_paired(found):
    """The same images are right with and without: no difference, however wide each interval."""
    assert found.difference(TUNED, TRAINED) == (0.0, 0.0, 0.0)
    mean, low, high = found.difference(TUNED, TRAINED, 5)
    assert 0 < low < mean < high
    assert found.difference(TUNED, ("random", "classifier alone")) is None


def test_the_verdict_follows_from_the_intervals(found):
    assert category_results.verdict(found) == (
        "pretraining helps with 5 labels a class; it is not shown to help with all (30) labels a "
        "class")
    assert "no runs with and without" in category_results.verdict(compared(outcome(FROZEN, 0, .5)))


def test_tables_curve_and_arrays_go_into_a_record(found, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run = write_run(tmp_path)
    record = Record("categories", category_results.TITLE, str(run), Model.load(run), "hpclcae ...",
                    figures=[category_results.FIGURE])
    category_results.tell(found, record)
    record.save()
    text, row = capsys.readouterr().out, found.find(FROZEN)
    assert f"{100 * row.mean:.1f}" in text and "15.8" in text
    for line in text.splitlines():
        if line.startswith(("best before", "without", "with pre")):
            assert line.count("recalled") == (1 if line.startswith("with pre") else 2)
    saved = read_record(str(run), "categories")
    assert [part["type"] for part in saved["parts"]] == ["table", "table", "table", "figure"]
    assert "5 labels a class" in saved["parts"][-1]["alt"]
    assert {row["kind"] for row in saved["values"]["rows"]} == {
        categories.KINDS[kind] for kind in (TUNED, TRAINED, FROZEN, PIXELS)}
    with h5py.File(run / "experiments" / "categories.h5") as store:
        right = store["right"][:]
        assert store["replicates"].shape == (len(found.rows), categories.REPLICATES)
    for who, each in zip(saved["values"]["classifiers"], right, strict=True):
        row, = (row for row in saved["values"]["rows"]
                if (row["kind"], row["per_class"]) == (who["kind"], who["per_class"]))
        assert each.mean() == row["top1"][row["seeds"].index(who["seed"])]


def test_a_row_that_lacks_a_seed_has_an_empty_cell():
    lacking = compared(*(outcome(TUNED, seed, 0.8) for seed in (0, 2)))
    assert category_results._by_seed(lacking.rows[0], (0, 1, 2))[1] is None


def test_regression_on_pixels_learns_and_keeps_the_best_on_held_out_images():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    x = rng.normal(size=(600, 8))
    x[:, :3] += 3 * np.eye(3)[labels]
    weights = categories.regress(x[:400], labels[:400], 3, x[400:500], labels[400:500], 200, 50,
                                 1e-4, 0)
    assert weights.shape == (9, 3)
    right = (categories._scores(x[500:], weights).argmax(axis=1) == labels[500:]).mean()
    assert right > 0.9
    again = categories.regress(x[:400], labels[:400], 3, x[400:500], labels[400:500], 200, 50,
                               1e-4, 0)
    np.testing.assert_array_equal(again, weights)
    nothing_held = categories.regress(x[:400], labels[:400], 3, x[:0], labels[:0], 200, 50, 1e-4, 0)
    assert (categories._scores(x[500:], nothing_held).argmax(axis=1) == labels[500:]).mean() > 0.9
