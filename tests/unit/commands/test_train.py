"""``hpclcae train``: what it refuses to write over."""
import shutil

from hpclcae import cli
from tests.support.processes import RUN


def test_the_file_that_is_read_is_not_replaced(tmp_path, capsys):
    mine = tmp_path / "configuration.toml"
    shutil.copy(RUN / "tiny.toml", mine)
    before = mine.read_bytes()
    assert cli.main(["train", str(mine), "--out", str(tmp_path)]) == 1
    assert "which would be replaced: choose another" in capsys.readouterr().err
    assert mine.read_bytes() == before
