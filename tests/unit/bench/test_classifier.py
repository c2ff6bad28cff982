"""hpclcae bench classifier: rows for every number of classes, and what is refused."""
import json

import pytest

from hpclcae import cli
from hpclcae.bench import classifier


def test_every_number_of_classes_has_its_rows(tmp_path, capsys, monkeypatch):
    """In one process here: its peak memory is not looked at."""
    monkeypatch.setattr(classifier, "_measured", classifier.measure)
    file = tmp_path / "rows.jsonl"
    assert cli.main(["bench", "classifier", "--classes", "5", "12", "--side", "2", "--maps", "3",
                     "--batch", "4", "--repeat", "1", "--loss", "softmax", "--rule", "adam",
                     "--json", str(file)]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["metric"] for row in rows] == ["step", "rate", "parameters", "memory"] * 2
    # 3 filters of 2 x 2 positions; weights of 12 features and biases
    assert [row["value"] for row in rows if row["metric"] == "parameters"] == [
        4 * (12 + classes * 13) for classes in (5, 12)]
    assert "2x2x3 features, batch 4, softmax, adam" in capsys.readouterr().out


def test_more_than_there_is_memory_for_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(classifier, "available_memory", lambda: 1e6)
    assert cli.main(["bench", "classifier", "--classes", "22000"]) == 1
    message = capsys.readouterr().err
    assert "22000 classes need about" in message and message.count("\n") == 1


@pytest.mark.parametrize("words", ["--classes 1", "--loss hinge", "--maps 0"])
def test_arguments_out_of_range_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "classifier", *words.split()])
    assert words.split()[0] in capsys.readouterr().err
