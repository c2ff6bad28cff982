"""bench machine and bench plan: what is measured is there and above 0. No test asserts a time."""
import dataclasses

import pytest

from hpclcae.bench import machine, plan
from hpclcae.cluster.machine import DEFAULT, PASSES, load, save
from hpclcae.partition.threads import run_blocks
from hpclcae.utils.errors import InputError

ONCE = machine.Timer(1)


def test_the_lower_quartile_is_what_nothing_disturbed():
    assert machine.lower_quartile([5.0, 1.0, 9.0, 2.0, 3.0]) == 2.0
    assert machine.lower_quartile([4.0]) == 4.0


def test_kernels_and_all_else_are_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "WINDOWS", ((3, 1), (4, 2)))
    monkeypatch.setattr(machine, "UNITS", (2, 4))
    monkeypatch.setattr(machine, "IMAGES", (1, 5))
    monkeypatch.setattr(machine, "FLOP", 1e4)
    monkeypatch.setattr(machine, "DISK_BYTES", 1 << 12)
    found = machine.measure_node(tmp_path, ONCE)
    assert found.kernel.inputs == (9, 32) and set(found.kernel.rates) == set(PASSES)
    assert min(found.elements[name] for name in found.elements if name != "whiten") > 0
    assert found.disk > 0 and list(tmp_path.iterdir()) == []
    save(found, tmp_path / "m.toml")
    assert load(tmp_path / "m.toml").cores == found.cores
    assert "products, 100 images, GFLOP/s" in machine.describe(found)


def test_a_link_is_the_same_for_all_its_ranks(monkeypatch):
    monkeypatch.setattr(machine, "EXCHANGES", 2)
    found = run_blocks(3, lambda world: machine.measure_link(world, "node", 1))
    first = found[0]
    assert (first.where, first.ranks) == ("node", 3)
    assert min(first.latency, first.bandwidth, first.total, first.stream, first.slowdown) > 0
    assert {(link.latency, link.total, link.stream) for link in found} == {
        (first.latency, first.total, first.stream)}


def test_another_file_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "refuse_more_threads", lambda: None)
    path = tmp_path / "mine.toml"
    path.write_text("[project]\n")
    args = type("Args", (), {"out": path})
    with pytest.raises(InputError, match="exists and is not a machine description"):
        machine.run(args)


@pytest.mark.parametrize("name, changes", plan.CASES, ids=str)
def test_every_case_is_predicted(name, changes):
    for ranks in (1, 2):
        step = plan.Case(name, ranks, changes).predicted(DEFAULT, ranks)
        assert step.seconds > 0 and (step.halo > 0) == (ranks > 1)


def test_a_line_compares_within_rounds():
    steps = [dataclasses.replace(plan.StepTime(), products=seconds) for seconds in (1.0, 4.0, 1.0)]
    line = plan._line(plan.Case("48", 1), list(zip(steps, (2.0, 4.0, 1.25))))
    assert line[4:7] == (0.8, 0.5, 1.0) and line[2] == 2000 and line[7] == "products 100 %"
