"""Exchanges under mpiexec: the same bits as in one process, and waiting leaves others the core."""
import numpy as np
import pytest

from hpclcae import config as configuration
from hpclcae.partition.cost import choose_grid
from hpclcae.partition.threads import run_blocks
from tests.support.blocks import exchange_everything

#: Uneven, with a stride, both windows of normalisation across blocks; 4 and more blocks a side skip
#: neighbours.
NETWORK = """
data = {size = 29, channels = 3}
stages = [{receptive_field = 9, maps = 2, pooling = 3, lcn = 5, lcn_border = "clip"},
          {receptive_field = 4, stride = 2, maps = 3, pooling = 2, lcn = 3, lcn_border = "centre"}]
"""


@pytest.mark.parametrize("ranks, grid, dtype", [
    (1, "1x1", "float64"), (2, "2x1", "float32"), (2, "1x2", "float64"), (4, "2x2", "float32"),
    (6, "3x2", "float64"), (6, "1x6", "float32"), (9, "3x3", "float64")])
def test_mpi_gives_the_bits_of_all_blocks_in_one_process(installed, tmp_path, ranks, grid, dtype):
    (tmp_path / "network.toml").write_text(NETWORK)
    installed.program(ranks, "exchange", tmp_path / "network.toml", grid, dtype, tmp_path)
    config = configuration.loads(NETWORK)
    blocks, numbers = choose_grid(config, ranks, grid), np.dtype(dtype).type
    expected = run_blocks(ranks, lambda communicator: exchange_everything(
        config, blocks, communicator, numbers))
    for rank, results in enumerate(expected):
        with np.load(tmp_path / f"{rank}.npz") as found:
            assert set(found.files) == set(results)
            for name, array in results.items():
                assert found[name].dtype == array.dtype
                assert np.array_equal(found[name], array), (rank, name)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_large_messages_arrive_in_any_order_and_everything_is_given_back(installed, ranks):
    lines = installed.program(ranks, "communicator")
    expected = np.array([[[0.1, rank], [1, 2]] for rank in range(ranks)]).sum(axis=0)
    assert lines == [" ".join(["sums", *map(str, expected.ravel().tolist())])] * ranks


def test_a_rank_that_waits_leaves_its_core_to_others(installed):
    """It waits a second for a message and a second for a sum."""
    [line] = installed.program(2, "waiting")
    channel, total, *received = map(float, line.split())
    assert received == [1] * 4
    assert channel < 0.2 and total < 0.2
