"""hpclcae convergence: the table and the picture."""
import numpy as np

from hpclcae.cli import main
from tests.support.images import write_dataset
from tests.support.tiny_run import write_metrics, write_run


def test_table_and_picture(tmp_path, capsys):
    run = write_run(tmp_path)
    write_metrics(run)
    assert main(["convergence", str(run), str(run), "--plot", str(tmp_path / "curves.png")]) == 0
    said = capsys.readouterr().out
    assert "objective at 18 minibatches" in said
    assert said.count("no servers") == 1 and " 82.0 +- 0.0" in said  # two runs of one kind
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_what_the_servers_hold_at_the_end_is_compared_on_other_images(tmp_path, capsys):
    run = write_run(tmp_path)
    write_metrics(run)
    images = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 1), np.uint8)
    other = write_dataset(tmp_path / "other.h5", images)
    assert main(["convergence", str(run), str(run), "--images", str(other)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("at the end, held out")
    assert float(said[2].rpartition(" +- ")[0].split()[-1]) > 0
