"""``hpclcae checkpoint query``: what plain NumPy says of the whole arrays, in constant memory."""
import csv
import errno
import os
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpclcae.checkpoint import query as queries
from hpclcae.checkpoint.model_file import AXES
from hpclcae.checkpoint.query import Query, answer, axes, sources
from hpclcae.cli import main
from hpclcae.utils.errors import InputError
from hpclcae.utils.summary import QUANTILES
from tests.support.output import cells
from tests.support.saving import datasets, made, old_file, save

FILTER = 2, 3, 4  # axes
BOTH = ["step-00000007", "step-00000008"]


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    """A run of two checkpoints whose weights differ, with a neurons.h5."""
    folder = tmp_path_factory.mktemp("run")
    state = made(tiny_config())
    save(folder, state, 3)
    state.parameters.vector[:] *= np.float32(1.25)
    save(folder, replace(state, step=8), 2)
    generator = np.random.default_rng(8)
    with h5py.File(folder / "neurons.h5", "w") as file:
        file.attrs.update(kind="hpclcae neurons", schema=1, step=8)
        for name in ("stage3/accuracy", "stage3/threshold", "stage3/auc"):
            file[name] = generator.uniform(0.5, 0.8, (5, 5, 2))
            file[name].attrs["axes"] = ["row", "col", "map"]
        file["stage3/best/stimuli"] = np.arange(9)
    return folder


@pytest.fixture(scope="module")
def arrays(run):
    """Every array of the older checkpoint in ``a``, of the newer one in ``b``, in float64."""
    return {f"{letter}.{name.replace('/', '.')}": array.astype(float)
            for letter, step in zip("ab", BOTH)
            for name, array in datasets(run / "checkpoints" / step).items()}


@pytest.fixture
def both(run):
    with sources(*(run / "checkpoints" / step for step in BOTH)) as found:
        yield found


@pytest.fixture(params=[1, 5_000, queries.BLOCK], ids=["positions", "parts of rows", "whole"])
def blocks(request, monkeypatch):
    """The same in blocks of one position, of parts of rows, and in one block."""
    monkeypatch.setattr(queries, "BLOCK", request.param)


def summarised(values):
    """What a summary says, by plain NumPy."""
    finite = values[np.isfinite(values)]
    return [values.size, values.size - finite.size, finite.mean(),
            np.sqrt(np.square(finite).mean()), finite.min(), finite.max(),
            *np.quantile(finite, np.array(QUANTILES) / 100)]


def assert_summary(summary, values, quantiles=1e-7):
    numbers = [summary.count, summary.not_finite, summary.mean, summary.rms, summary.minimum,
               summary.maximum, *summary.quantiles]
    expected = summarised(values)
    scale = np.abs(values[np.isfinite(values)]).max()
    assert numbers[:2] == expected[:2]
    assert np.allclose(numbers[2:6], expected[2:6], rtol=1e-12, atol=1e-14 * scale)
    assert np.allclose(numbers[6:], expected[6:], rtol=quantiles, atol=1e-14 * scale)
    if expected[4] < expected[5]:
        assert summary.histogram.sum() == values.size - expected[1]
        histogram = np.histogram(values[np.isfinite(values)], summary.edges)[0]
        assert np.abs(summary.histogram - histogram).sum() <= 2  # at an edge the two may differ


# ---- what is computed ----------------------------------------------------------------------------

EXPRESSIONS = [
    ("a.stage1.encode", lambda v: v["a.stage1.encode"]),
    ("a.update.velocity.stage2.encode ** 2", lambda v: v["a.update.velocity.stage2.encode"] ** 2),
    ("a.stage1.encode - b.stage1.encode / 3",
     lambda v: v["a.stage1.encode"] - v["b.stage1.encode"] / 3),
    ("exp(a.preprocess.kernel)", lambda v: np.exp(v["a.preprocess.kernel"])),
    ("a.preprocess.eigenvalues * 2", lambda v: v["a.preprocess.eigenvalues"] * 2),
    ("1 / (a.cursors - 7)", lambda v: np.array([np.inf, 0.5])),
    ("rms(a.stage1.encode)", lambda v: np.sqrt((v["a.stage1.encode"] ** 2).mean(FILTER))),
    ("rms(a.stage2.encode - b.stage2.encode) / rms( a.stage2.encode )",
     lambda v: np.sqrt(((v["a.stage2.encode"] - v["b.stage2.encode"]) ** 2).mean(FILTER)
                       / (v["a.stage2.encode"] ** 2).mean(FILTER))),
    ("max(a.stage2.encode) - min(a.stage2.encode)", lambda v: np.ptp(v["a.stage2.encode"], FILTER)),
    ("mean(a.stage1.encode > 0) * sum(b.stage1.encode)",
     lambda v: (v["a.stage1.encode"] > 0).mean(FILTER) * v["b.stage1.encode"].sum(FILTER)),
    ("a.stage2.encode / norm(a.stage2.encode)",
     lambda v: v["a.stage2.encode"] / np.linalg.norm(
         v["a.stage2.encode"].reshape(12, 12, -1, 3), axis=2)[:, :, None, None, None])]


@pytest.mark.parametrize("text, expected", EXPRESSIONS, ids=[text for text, _ in EXPRESSIONS])
def test_the_summary_is_that_of_the_whole_array(both, arrays, blocks, text, expected):
    with np.errstate(divide="ignore"):
        values = expected(arrays)
    query = Query(text, both)
    assert query.shape == values.shape and len(query.axes) == values.ndim
    assert_summary(answer(query).summary, values.ravel())


def test_a_condition_is_counted(both, arrays, blocks):
    found = answer(Query("a.stage1.encode > 0.1", both))
    values = arrays["a.stage1.encode"] > 0.1
    assert (found.true, found.count, found.summary) == (values.sum(), values.size, None)
    chosen = Query("b.stage1.encode < 0.5", both)
    found = answer(Query("a.stage1.encode > 0.1", both), chosen)
    where = arrays["b.stage1.encode"] < 0.5
    assert (found.true, found.count) == (values[where].sum(), where.sum())


@pytest.mark.parametrize("by_value", [False, True])
def test_rows_are_the_first_or_the_largest_where_a_condition_holds(both, arrays, blocks, by_value):
    text = "floor(a.stage3.encode * 10 + 0.5) / 10"  # so that many are equal
    values = np.floor(arrays["a.stage3.encode"] * 10 + 0.5) / 10
    where = arrays["b.stage3.encode"] < 0.2
    found = answer(Query(text, both), Query("b.stage3.encode < 0.2", both), 30, by_value)
    places = np.argwhere(where)
    if by_value:
        places = places[np.argsort(-values[where], kind="stable")]
    assert found.rows.count == where.sum()
    assert found.rows.places.tolist() == places[:30].tolist()
    assert np.allclose(found.rows.values, values[tuple(places[:30].T)], rtol=1e-14)
    assert_summary(found.summary, values[where])


def test_nan_comes_last_and_a_limit_may_be_larger_than_the_result(both, blocks):
    text = "log(a.preprocess.eigenvalues - 1) + 0 / (a.preprocess.eigenvalues != 0)"
    query = Query(text, both)
    values = np.concatenate([query.values(block) for block in queries.blocks_of(query.shape, 7)])
    order = np.argsort(-values, kind="stable")
    for limit in (3, 24, 99):
        rows = answer(query, None, limit, True).rows
        assert rows.count == 25 and rows.places.ravel().tolist() == order[:limit].tolist()
        assert np.array_equal(rows.values, values[order[:limit]], equal_nan=True)
    assert np.isnan(values).sum() not in (0, 25)


@pytest.mark.parametrize("numbers", [
    np.zeros(3000), np.arange(-1500, 1500) * 1e300, np.float32([1, -1] * 1500), -np.arange(3e3),
    np.geomspace(1e-320, 1e300, 3000), np.array([0.0, -0.0, 5e-324, np.nan, -np.inf] * 600),
    np.full(3000, np.nan), np.random.default_rng(2).standard_cauchy(3000)],
    ids=["equal", "huge", "two values", "negative", "all sizes", "special", "nan", "long tails"])
def test_quantiles_of_any_numbers_are_as_exact_as_they_are_said_to_be(tmp_path, numbers, blocks):
    with h5py.File(tmp_path / "neurons.h5", "w") as file:
        file.attrs.update(kind="hpclcae neurons", step=1)
        file["x"] = numbers
    with sources(tmp_path / "neurons.h5") as found:
        summary = answer(Query("x", found)).summary
    finite = np.sort(numbers[np.isfinite(numbers)]).astype(float)
    assert (summary.count, summary.not_finite) == (3000, 3000 - finite.size)
    if not finite.size:
        assert np.isnan([summary.mean, summary.minimum, *summary.quantiles]).all()
        return
    place = (finite.size - 1) * np.array(QUANTILES) / 100
    before, after = finite[np.floor(place).astype(int)], finite[np.ceil(place).astype(int)]
    with np.errstate(over="ignore"):
        expected = np.quantile(finite, np.array(QUANTILES) / 100)
    error = np.abs(summary.quantiles - expected)
    wrong = 0 if numbers.dtype == np.float32 else 6e-8 * np.maximum(abs(before), abs(after))
    assert (error <= wrong + 1e-15 * abs(expected) + 2e-315).all()


def test_float32_weights_have_exact_quantiles_in_any_blocks(both, arrays, blocks):
    quantiles = answer(Query("a.stage1.encode", both)).summary.quantiles
    expected = np.quantile(arrays["a.stage1.encode"], np.array(QUANTILES) / 100)
    assert np.allclose(quantiles, expected, rtol=1e-14, atol=0)


def test_blocks_cover_the_result_in_its_order():
    for shape in [(7,), (4, 9), (3, 5, 2), (2, 3, 2, 2, 1, 4), (0, 3)]:
        for size in (1, queries.BLOCK // 4, queries.BLOCK // 2, queries.BLOCK * 2):
            numbers = np.arange(np.prod(shape)).reshape(shape)
            pieces = [numbers[block].ravel() for block in queries.blocks_of(shape, size)]
            assert np.concatenate([np.empty(0), *pieces]).tolist() == numbers.ravel().tolist()


def test_memory_does_not_grow_with_the_array(tmp_path):
    """105 MB of weights, 210 MB as float64, through the blocks of every part of a query."""
    shape = 40, 40, 8, 8, 8, 32
    row = np.random.default_rng(0).standard_normal(shape[1:], np.float32)
    with h5py.File(tmp_path / "step-00000003.h5", "w") as file:
        file.attrs.update(kind="hpclcae checkpoint", schema=1, step=3)
        file["row"] = row[:, 0]
        layout = h5py.VirtualLayout(shape, np.float32)
        file["one"] = row
        for number in range(shape[0]):
            layout[number] = h5py.VirtualSource(file["one"])
        file.create_virtual_dataset("stage1/encode", layout)
    with sources(tmp_path / "step-00000003.h5") as found:
        query = Query("stage1.encode / norm(stage1.encode) + rms(stage1.encode)", found)
        chosen = Query("stage1.encode + 1 > 2 * rms(stage1.encode)", found, "--where")
        tracemalloc.start()
        result = answer(query, chosen, 50, True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 40e6
    where = row + 1 > 2 * np.sqrt(np.square(row, dtype=float).mean((1, 2, 3), keepdims=True))
    assert result.summary.count == result.rows.count == shape[0] * where.sum()


# ---- the files -----------------------------------------------------------------------------------


def test_a_checkpoint_of_one_file_and_neurons_are_read_as_well(tiny_config, tmp_path, run, arrays):
    old = old_file(tmp_path / "old/step-00000007.h5", made(tiny_config()))
    for text in ("stage1.encode", "rms(update.velocity.stage1.encode)", "preprocess.kernel"):
        results = []
        for path in (old, run / "checkpoints" / BOTH[0]):
            with sources(path) as found:
                query = Query(text, found)
                results.append((answer(query).summary.quantiles, query.axes, found.steps))
        assert results[0] == results[1]
    with sources(run, run / "neurons.h5") as found:
        assert found.steps == (8, 8)
        assert axes(found.arrays["b.stage3.accuracy"]) == ("row", "col", "map")
        summary = answer(Query("b.stage3.accuracy * rms(a.stage3.encode)", found)).summary
    with h5py.File(run / "neurons.h5") as file:
        accuracy = file["stage3/accuracy"][...]
    strength = np.sqrt((arrays["b.stage3.encode"] ** 2).mean(FILTER))
    assert_summary(summary, (accuracy * strength).ravel())


@pytest.mark.parametrize("text", ["rms(a.stage1.encode)", "a.stage1.encode > b.stage1.encode"])
def test_the_whole_result_goes_into_a_file(both, arrays, blocks, tmp_path, text):
    out = tmp_path / "result.h5"
    answer(Query(text, both), out=out)
    one, other = arrays["a.stage1.encode"], arrays["b.stage1.encode"]
    expected = np.sqrt((one ** 2).mean(FILTER)) if "rms" in text else one > other
    with h5py.File(out) as file:
        assert file.attrs["kind"] == "hpclcae query" and list(file) == ["result"]
        result = file["result"]
        assert result.dtype == expected.dtype and np.allclose(result, expected, rtol=1e-13, atol=0)
        attributes = dict(result.attrs)
    assert attributes["expression"] == text and attributes["steps"].tolist() == [7, 8]
    assert list(attributes["sources"]) == list(map(str, both.paths))
    assert list(attributes["axes"]) == (["row", "col", "map"] if "rms" in text else AXES)


@pytest.mark.parametrize("name", ["checkpoints/step-00000008/model.h5", "neurons.h5", "link.h5",
                                  "checkpoints/step-00000008/new.h5"])
def test_what_is_read_is_never_written(run, name, capsys):
    link = run / "link.h5"
    link.unlink(missing_ok=True)
    link.symlink_to("checkpoints/step-00000008/model.h5")
    before = (run / name).read_bytes() if (run / name).exists() else None
    with sources(run, run / "neurons.h5") as found:
        with pytest.raises(InputError, match="which is read: choose another file"):
            answer(Query("a.stage1.encode", found), out=run / name)
    for argument in ("--csv", "--out"):
        line = said(capsys, run, "--and", run / "neurons.h5", "b.stage3.accuracy",
                    argument, run / name, code=1)
        assert "which is read: choose another file" in line
    assert ((run / name).read_bytes() if (run / name).exists() else None) == before


@pytest.mark.parametrize("option", ["--out", "--csv"])
@pytest.mark.parametrize("name", ["metrics.jsonl", "configuration.toml", "checkpoints/run-id",
                                  "checkpoints/step-00000007/model.h5", "dataset.h5"])
def test_a_file_that_is_no_result_of_a_query_is_never_replaced(run, tmp_path, tiny_dataset, capsys,
                                                               option, name):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.copy(tiny_dataset, copy / "dataset.h5")
    for text in ("metrics.jsonl", "configuration.toml"):
        (copy / text).write_text("mine\n")
    before = (copy / name).read_bytes()
    line = said(capsys, run, "stage1.encode", option, copy / name, code=1)
    assert f"{copy / name} exists and is not a result of a query of ours" in line
    assert (copy / name).read_bytes() == before


def test_an_earlier_result_is_replaced_and_two_results_need_two_names(run, tmp_path, capsys):
    out, table = tmp_path / "out.h5", tmp_path / "table.csv"
    for limit in (3, 5):
        said(capsys, run, "stage1.encode", "--out", out, "--csv", table, "--limit", limit)
        assert len(table.read_text().splitlines()) == 1 + limit
    for words in (("--out", table), ("--csv", out)):
        assert "is not a result of a query" in said(capsys, run, "stage1.encode", *words, code=1)
    both = tmp_path / "both"
    line = said(capsys, run, "stage1.encode", "--out", both, "--csv", both, code=1)
    assert f"--out and --csv are both {both}: choose two names" in line and not both.exists()


def test_a_result_that_cannot_be_written_is_one_line(both, tmp_path, monkeypatch):
    query = Query("a.stage1.encode", both)
    for out, words in ((tmp_path, "it is a folder; name a file in it"),
                       (tmp_path / "no" / "file.h5", "must be a file in a folder that exists")):
        with pytest.raises(InputError, match=words):
            answer(query, out=out)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"out.h5 cannot be written \(No space left on device\)"):
        answer(query, out=tmp_path / "out.h5")
    assert list(tmp_path.iterdir()) == []


# ---- the command ---------------------------------------------------------------------------------


def said(capsys, *words, code=0):
    """Lines that the command prints; of an error, its one line."""
    assert main(["checkpoint", "query", *map(str, words)]) == code
    out, err = capsys.readouterr()
    if code:
        line, = err.splitlines()
        assert line.startswith("hpclcae checkpoint query: ") and out == ""
        return line
    assert err == ""
    return out.splitlines()


def test_the_command_prints_summary_histogram_and_places(run, arrays, tmp_path, capsys):
    one, other = (run / "checkpoints" / step for step in BOTH)
    text = "rms(b.stage1.encode - a.stage1.encode) / rms(a.stage1.encode)"
    lines = said(capsys, one, "--and", other, text, "--where", "rms(a.stage1.encode) > 0.1",
                 "--sort", "--limit", 4,
                 "--csv", tmp_path / "rows.csv", "--out", tmp_path / "all.h5")
    before, after = arrays["a.stage1.encode"], arrays["b.stage1.encode"]
    strength = np.sqrt((before ** 2).mean(FILTER))
    values = np.sqrt(((after - before) ** 2).mean(FILTER)) / strength
    where = strength > 0.1
    assert lines[:3] == [f"a: {one} (step 7)", f"b: {other} (step 8)",
                         f"{text}: row x col x map = 20 x 20 x 4"]
    numbers = [float(cell) for cell in lines[5].split()]
    assert numbers == pytest.approx(summarised(values[where])[:6], rel=1e-5)
    assert [float(cell) for cell in lines[9].split()] == pytest.approx(
        summarised(values[where])[6:], rel=1e-5)
    histogram = [line.split() for line in lines[13:33]]
    assert sum(int(cell[2]) for cell in histogram) == where.sum()
    assert max(len(cell[3]) for cell in histogram if len(cell) > 3) == 40
    assert lines[34] == f"{where.sum():,} places, 4 listed, the largest first:"
    places = np.argwhere(where)[np.argsort(-values[where], kind="stable")][:4]
    with (tmp_path / "rows.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == lines[35].split() == ["row", "col", "map", "value"]
    assert len(rows) == 4 and len(set(values[tuple(places.T)])) == 4
    for row, line, place in zip(rows, lines[37:41], places):
        assert list(map(int, row[:3])) == list(map(int, line.split()[:3])) == place.tolist()
        assert float(row[3]) == pytest.approx(values[tuple(place)], rel=1e-12)
        assert float(line.split()[3]) == pytest.approx(values[tuple(place)], rel=1e-5)
    assert lines[41:] == [f"wrote {tmp_path / 'all.h5'}", f"wrote {tmp_path / 'rows.csv'}"]


def test_neurons_are_asked_as_the_help_says(run, capsys):
    lines = said(capsys, run / "neurons.h5", "stage3.auc", "--where", "stage3.auc > 0.7")
    with h5py.File(run / "neurons.h5") as file:
        auc = file["stage3/auc"][...]
    places = np.argwhere(auc > 0.7)
    count = len(places)
    assert f"{count} places, {count} listed, in order:" in lines
    assert [list(map(int, line.split()[:3])) for line in lines[-count:]] == places.tolist()
    assert said(capsys, run / "neurons.h5", "stage3.auc > 0.7")[2] == f"true for {count} of 50"


@pytest.mark.parametrize("words", [["--list"], ["--list", "--csv", "never.csv"]])
def test_list_names_what_can_be_used(run, arrays, capsys, words):
    rows = cells(said(capsys, run, *words)[2:])
    assert {f"b.{name}" for name in rows} == {name for name in arrays if name.startswith("b.")}
    assert rows["stage3.encode"] == ["row x col x krow x kcol x map in x map",
                                     "5 x 5 x 4 x 4 x 3 x 2", "float32"]
    rows = cells(said(capsys, "--list", run, "--and", run / "neurons.h5")[2:])
    assert rows["b.stage3.best.stimuli"] == ["axis 0", "9", "int64"] and "a.stage1.encode" in rows


@pytest.mark.parametrize("text, words", [
    ("stage1.enocde", "'stage1.enocde' is not known here: use stage1.encode"),
    ("a.stage1.encode", "'a.stage1.encode' is not known here: use stage1.encode"),
    ("metrics", "'metrics' is not known here"), ("chunks", "'chunks' is not known here"),
    ("stage1.encode.__class__", "is not known here"), ("__import__('os')", "is not a function"),
    ("().__class__", "is not arithmetic"), ("(1).real", "is not arithmetic"), ("", "it is empty"),
    ("'stage1.encode'", "is not arithmetic"), ("rms(*stage1.encode)", "it cannot be read"),
    ("9**9**9**9", "it names no array: use names such as"),
    ("(" * 10_000 + "1" + ")" * 10_000, "has 20,001 characters"),
    ("stage1.encode[0]", "is not arithmetic"), ("rms(3)", "rms(3) names no array"),
    ("stage1.encode + stage2.encode", "stage1.encode has shape (20, 20, 5, 5, 1, 4) and "
     "stage2.encode has shape (12, 12, 5, 5, 4, 3): use arrays of one shape"),
    ("rms(stage1.encode) + stage1.encode + stage2.encode", "and stage2.encode has shape (12, 12, "),
    ("rms(stage1.encode) - rms(stage2.encode)", "and rms(stage2.encode) has shape (12, 12, 3)"),
    ("preprocess.kernel + stage1.encode", "preprocess.kernel has shape (5, 5, 1, 1)"),
    ("rms(preprocess.kernel)", "preprocess.kernel in rms(preprocess.kernel) has shape (5, 5, 1, 1):"
     " use arrays of weights (row, col, krow, kcol, map in, map)"),
    ("rms(stage1.encode - stage2.encode)",
     "stage2.encode in rms(stage1.encode - stage2.encode) has shape"),
    ("rms(rms(stage1.encode))", "in rms(rms(stage1.encode)) one reduction stands in another"),
    ("rms()", "'rms()' needs 1 argument"), ("rms(stage1.encode, 2)", "needs 1 argument"),
    ("rms(stage1.enocde)", "'stage1.enocde' is not known here: use stage1.encode"),
    ("stage1.encode & 1", "'stage1.encode' is a number where a comparison is needed")])
def test_what_is_wrong_with_an_expression_is_one_line(run, capsys, text, words):
    assert words in said(capsys, run, text, code=1)
    line = said(capsys, run, "stage1.encode", "--where", text, code=1)
    assert words in line and line.startswith("hpclcae checkpoint query: --where '")


@pytest.mark.parametrize("words, message", [
    (["stage1.encode", "--where", "stage1.encode"], "it is no condition: compare something"),
    (["stage1.encode", "--where", "stage2.encode > 0"], "it has shape (12, 12, 5, 5, 4, 3), and "),
    (["stage1.encode", "--where", "rms(stage1.encode) > 0"], "it has shape (20, 20, 4), and "),
    (["stage1/encode"], "'stage1/encode' is not known here: write dots for slashes: stage1.encode"),
    (["any.thing", "--list"], "takes no EXPRESSION: leave out 'any.thing'"),
    (["runs/b", "a.stage1.encode"], "--and runs/b EXPRESSION"),
    (["no[t"], "the functions sqrt, exp, "), (["no[t"], "rms, mean, sum, norm, min, max"),
    (["stage1.encode", "--csv", "no/such/file"], "no/such/file cannot be written"),
    (["stage1.encode", "--out", "no/such/file"], "no/such/file cannot be written"),
    (["stage1.encode", "--and", "nowhere"], "nowhere is neither a checkpoint nor"),
    (["stage1.encode", "--and", __file__], "cannot be read as HDF5")])
def test_what_is_wrong_with_an_argument_is_one_line(run, capsys, words, message):
    assert message in said(capsys, run, *words, code=1)


def test_with_two_files_every_name_says_which(run, capsys):
    for text in ("stage1.encode", "a.stage1.encode - stage1.encode", "c.stage1.encode"):
        line = said(capsys, run, text, "--and", run, code=1)
        assert "'stage1.encode' is not known here: use " in line or text[0] == "c"
        assert "b.stage1.encode" in line and "a.stage1.encode" in line


def test_an_expression_is_needed_but_for_the_list(run, capsys):
    assert "no EXPRESSION: give one" in said(capsys, run, code=1)
    with pytest.raises(SystemExit) as caught:
        main(["checkpoint", "query", str(run), "stage1.encode", "--limit", "0"])
    line = capsys.readouterr().err
    assert caught.value.code == 2 and line.count("\n") == 1
    assert "argument --limit: 0; it must be at least 1" in line


def test_a_condition_that_nothing_fulfils_says_so(run, capsys):
    lines = said(capsys, run, "stage1.encode", "--where", "stage1.encode > 1e9", "--sort")
    assert lines[-1] == "no place fulfils the condition"


def test_files_that_are_damaged_or_of_another_kind_are_named(run, tmp_path, tiny_dataset, capsys):
    line = said(capsys, tiny_dataset, "x", code=1)
    assert "is hpclcae dataset, not an hpclcae checkpoint" in line
    content = (run / "neurons.h5").read_bytes()
    broken = tmp_path / "neurons.h5"
    broken.write_bytes(content[:len(content) // 2])
    assert str(broken) in said(capsys, broken, "stage3.accuracy", code=1)
    broken.write_bytes(content)
    with h5py.File(broken, "r+") as file:
        del file.attrs["step"]
    assert f"{broken} cannot be read as HDF5" in said(capsys, broken, "stage3.accuracy", code=1)


def test_long_work_shows_progress(run, monkeypatch, capsys):
    monkeypatch.setattr(queries, "BLOCK", 5_000)
    assert main(["checkpoint", "query", str(run), "stage1.encode"]) == 0
    assert "query: " in capsys.readouterr().err
