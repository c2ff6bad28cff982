"""hpclcae train: what it refuses before it opens anything."""
import shlex
import shutil

from hpclcae import cli
from hpclcae.utils.lock import locked
from tests.support.processes import RUN

TINY = str(RUN / "tiny.toml")


def test_two_trainings_do_not_share_a_run_folder(tiny_dataset, tmp_path, capsys):
    words = ["train", TINY, "--out", str(tmp_path / "run"), "--set", f"data.train={tiny_dataset}",
             "--set", "train.steps=2"]
    with locked(tmp_path / "run"):
        for more in ([], ["--resume"]):
            assert cli.main([*words, *more]) == 1
            said = capsys.readouterr().err
            assert said.startswith(f"hpclcae train: {tmp_path}/run is in use by process ")
            assert said.count("\n") == 1
    assert cli.main(words) == 0


def test_what_is_refused_leaves_no_run_folder(tmp_path, capsys):
    assert cli.main(["train", TINY, "--out", str(tmp_path / "run"), "--set",
                     "data.train=nowhere.h5"]) == 1
    assert "nowhere.h5 is not a file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_servers_need_several_processes_and_the_line_for_them_can_be_pasted(tmp_path, capsys):
    words = ["train", TINY, "--out", str(tmp_path / "a run"), "--servers", "1", "--replicas", "2"]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    start = said[said.index("hpclcae launch"):said.index(", or train in one")]
    assert shlex.split(start)[1:] == ["launch", *words[1:]]


def test_the_file_that_is_read_is_not_replaced(tmp_path, capsys):
    mine = tmp_path / "configuration.toml"
    shutil.copy(RUN / "tiny.toml", mine)
    before = mine.read_bytes()
    assert cli.main(["train", str(mine), "--out", str(tmp_path)]) == 1
    assert "which would be replaced: choose another" in capsys.readouterr().err
    assert mine.read_bytes() == before
