"""Results on disk that are damaged are one line, whatever is wrong with them."""
import copy
import json
import random

import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.experiments.report import sections
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import write_parallel, write_run

ODD = (None, "", "x", -1, 1e300, [], {}, True, [None, None])


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("sections"))
    write_parallel(run)
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "0", "--random-seeds",
                     "0"]) == 0
    return run, Model.load(run)


def changed(value, chance):
    """A copy in which one value anywhere is another, or gone."""
    found = copy.deepcopy(value)
    at = found
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = chance.choice(keys)
        inner = at[key]
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.8:
            at = inner
            continue
        if chance.random() < 0.3:
            del at[key]
        else:
            at[key] = chance.choice(ODD)
        return found


def test_a_damaged_table_of_neurons_is_refused_or_shown(examined):
    run, model = examined
    file = run / "neurons.json"
    whole = json.loads(file.read_text())
    refused, chance = 0, random.Random(0)
    for _ in range(300):
        file.write_text(json.dumps(changed(whole, chance)))
        try:
            found = sections.read_rows(run, model)
            sections.neurons_table(found)
            sections.headline(found["rows"], "face")
            sections.provenance(model, found, None)
            sections.reproduce(str(run), run, model, found, [], "")
        except InputError as error:
            refused += 1
            assert "neurons.json" in str(error)
    file.write_text(json.dumps(whole))
    assert refused > 10


def test_the_table_of_ranks_has_workers_and_servers(examined):
    run, _ = examined
    rows = {row[0]: row for row in sections.parallel_table(run).rows}
    assert rows["replica 1 block 0"] == ["replica 1 block 0", "10.0", "90", "20", "37.5", "2.00",
                                         "1.00", ""]
    assert rows["server 1"] == ["server 1", "10.0", "15", "", "", "", "", "1.25"]
    (run / "parallel.json").unlink()
    assert sections.parallel_table(run) is None


def test_an_experiment_may_name_no_file_outside_its_folder(tmp_path):
    (tmp_path / "secret.svg").write_text("<svg/>")
    (tmp_path / "experiments").mkdir()
    with pytest.raises(InputError, match="is not in"):
        sections._embedded(tmp_path / "experiments", {"svg": "../secret.svg", "file": "a.png"})
