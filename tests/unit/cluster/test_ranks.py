"""How many ranks: replicas share the cores, servers come on top, what does not fit is refused."""
import pytest

from hpclcae import config as configuration
from hpclcae.cluster.ranks import grid_for, ranks_for
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN

TINY = RUN / "tiny.toml"


@pytest.mark.parametrize("changes, cores, ranks", [
    ([], 1, 1), ([], 6, 6), (["servers=2"], 1, 3), (["servers=2", "replicas=3"], 2, 5),
    (["servers=2", "replicas=3"], 8, 2 + 3 * 2), (["servers=1", "replicas=2", 'grid="2x3"'], 2, 13),
    (['grid="1x1"'], 8, 1)])
def test_replicas_share_the_cores_and_servers_come_on_top(changes, cores, ranks):
    config = configuration.load(TINY, [f"parallel.{change}" for change in changes])
    parallel = config.parallel
    assert ranks_for(config, cores) == ranks
    assert parallel.servers + parallel.replicas * grid_for(config, ranks).size == ranks


def test_no_more_blocks_than_fit():
    config = configuration.load(TINY)
    assert ranks_for(config, 29) == 28  # of 29 blocks in a row on 24 pixels there is none


@pytest.mark.parametrize("changes, ranks, words", [
    (["parallel.servers=2", "parallel.replicas=2"], 5, "need 4, 6, 8"),
    (['parallel.grid="2x2"'], 3, "need 4"), (['parallel.grid="99x1"'], 99, "99x1")])
def test_ranks_that_do_not_fit_are_refused(changes, ranks, words):
    with pytest.raises(InputError, match=words):
        grid_for(configuration.load(TINY, changes), ranks)
