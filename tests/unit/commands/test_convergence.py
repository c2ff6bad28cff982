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


def test_what_is_held_by_the_servers_at_the_end_is_compared_on_other_images(tmp_path, capsys,
                                                                          labelled_dataset):
    run = write_run(tmp_path)
    write_metrics(run)
    words = ["convergence", str(run), str(run), "--images", str(labelled_dataset)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "at the end, held out" in said.splitlines()[0]
    assert float(said.splitlines()[2].rpartition(" +- ")[0].split()[-1]) > 0
