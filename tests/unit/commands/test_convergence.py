"""hpclcae convergence: the table and the picture."""
from hpclcae.cli import main
from tests.support.tiny_run import write_metrics, write_run


def test_table_and_picture(tmp_path, capsys):
    run = write_run(tmp_path)
    write_metrics(run)
    assert main(["convergence", str(run), str(run), "--plot", str(tmp_path / "curves.png")]) == 0
    said = capsys.readouterr().out
    assert "objective at 18 minibatches" in said
    assert said.count("no servers") == 1 and " 82.0 +- 0.0" in said  # two runs of one kind
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
