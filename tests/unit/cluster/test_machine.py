"""Machine descriptions: written and read, looked up between what was measured, or refused."""
import dataclasses

import numpy as np
import pytest

from hpclcae.cluster.machine import DEFAULT, ELEMENTS, PASSES, Kernel, Link, load, save
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN

KERNEL = Kernel((10, 1000), (8, 32), (1, 100),
                {kind: [[[1e9, 4e9], [2e9, 8e9]], [[4e9, 16e9], [8e9, 32e9]]] for kind in PASSES},
                dict.fromkeys(PASSES, 1e-5))
MEASURED = dataclasses.replace(
    DEFAULT, name='a "quoted" machine', cores=4, jitter=0.1, stage=1e-4, kernel=KERNEL,
    elements={name: n * 1e-9 for n, name in enumerate(ELEMENTS)},
    links=(Link("node", 2, 1e-5, 1e-6, 1e9, 2e-5, 3e9, 1.2),
           Link("node", 8, 1e-4, 1e-6, 5e8, 2e-5, 3e9, 2.4),
           Link("network", 16, 1e-4, 1e-5, 1e9, 1e-3, 1e9, 1.0)))


def test_what_is_written_is_read(tmp_path):
    save(MEASURED, tmp_path / "m.toml", ["a line"])
    found = load(tmp_path / "m.toml")
    assert found.links == MEASURED.links
    assert found.elements == pytest.approx(MEASURED.elements)
    assert found.name == MEASURED.name and found.cores == 4 and found.jitter == 0.1
    assert np.array_equal(found.kernel.rates["forward"], KERNEL.rates["forward"])


@pytest.mark.parametrize("path", sorted((RUN / "machines").glob("*.toml")), ids=lambda p: p.name)
def test_the_assumed_machines_say_that_they_are(path):
    assert load(path).name.startswith("assumed: ")
    assert path.read_text().startswith("# Assumed, not measured: ")


def test_a_rate_between_sizes_is_between_rates():
    assert KERNEL.rate("encode", 10, 8, 1) == pytest.approx(1e9)
    assert KERNEL.rate("encode", 100, 8, 1) == pytest.approx(2e9)   # half way in logarithms
    assert KERNEL.rate("encode", 100, 16, 10) == pytest.approx(2e9 * 2 ** 0.5 * 2)
    assert KERNEL.rate("encode", 10 ** 6, 10 ** 6, 10 ** 6) == pytest.approx(32e9)
    assert KERNEL.rate("encode", 1, 1, 1) == pytest.approx(1e9)


def test_the_nearest_number_of_ranks_is_looked_up():
    assert MEASURED.link("node", 3).ranks == 2 and MEASURED.link("node", 7).ranks == 8
    assert MEASURED.link("network", 2).where == "network"
    alone = dataclasses.replace(MEASURED, links=MEASURED.links[:1])
    assert alone.link("network", 100).where == "node" and not alone.knows_network
    assert MEASURED.slowdown(1) == 1 and MEASURED.slowdown(8) == 2.4
    assert MEASURED.slowdown(16) == 4.8  # twice as many ranks a core


def test_more_cores_are_disturbed_by_as_many_ranks_a_core():
    larger = MEASURED.resized(40, 1e12)
    assert larger.slowdown(80) == MEASURED.slowdown(8)
    assert larger.link("node", 80).latency == MEASURED.link("node", 8).latency
    assert larger.link("network", 16) == MEASURED.link("network", 16)


def test_a_link_that_is_measured_again_takes_the_place_of_the_old():
    again = MEASURED.with_link(dataclasses.replace(MEASURED.links[0], latency=7.0))
    assert len(again.links) == 3 and again.link("node", 2).latency == 7.0


@pytest.mark.parametrize("old, new, message", [
    ("cores = 4", "cores = 0", "machine.cores = 0: it must be a number of at least 1"),
    ("jitter = 0.1", "jitter = nan", "machine.jitter = nan"),
    ("jitter = 0.1", 'jitter = "0.1"', "machine.jitter = '0.1'"),
    ("format = 1", "format = 2", "format = 2, this version reads 1"),
    ("[kernel.row]", "[kernel.rows]", "no 'row'"),
    ("units = [8, 32]", "units = [32, 8]", "kernel.units = "),
    ("units = [8, 32]", "units = [8, 16, 32]", "a table of 2 x 3 x 2 rates above 0"),
    ('where = "network"', 'where = "net"', "links = "),
    ("[machine]", "[machines]", r"it has no \[machine\]"),
    ("cores = 4", "cores = = 4", "cannot be read as a machine description")])
def test_a_broken_description_is_refused_in_one_line(tmp_path, old, new, message):
    path = tmp_path / "m.toml"
    save(MEASURED, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert "hpclcae bench machine" in str(caught.value)


def test_a_file_that_is_missing_names_what_makes_it(tmp_path):
    with pytest.raises(InputError, match="cannot be read.*hpclcae bench machine --out"):
        load(tmp_path / "none.toml")
