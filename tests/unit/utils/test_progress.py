"""Progress: every item passes, a log gets few lines, a terminal a bar."""
import io
import itertools
import sys

import pytest

from hpclcae.utils import progress as module
from hpclcae.utils.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by four seconds whenever it is read."""
    ticks = itertools.count(0.0, 4.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(ticks))


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(capsys, clock):
    assert list(progress(range(10), "reading", unit="images")) == list(range(10))
    lines = capsys.readouterr().err.splitlines()
    # Read at the start, after each item and at the end: items 3, 6 and 9 are at least ten seconds
    # apart.
    assert lines == ["reading: 3/10 images in 12 s (0.2/s), about 28 s left",
                     "reading: 6/10 images in 24 s (0.2/s), about 16 s left",
                     "reading: 9/10 images in 36 s (0.2/s), about 4 s left",
                     "reading: 10/10 images in 44 s (0.2/s)"]


def test_an_iterator_of_unknown_length_has_no_total(capsys, clock):
    assert list(progress(iter("abc"), "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines()[-1].startswith("reading: 3 ")


def test_nothing_at_all_is_one_line(capsys):
    assert list(progress([], "reading", unit="images")) == []
    assert capsys.readouterr().err == "reading: 0 images in 0 s (0.0/s)\n"


def test_it_is_lazy(capsys):
    items = progress(itertools.count(), "counting")
    assert [next(items), next(items)] == [0, 1]


def test_a_terminal_gets_a_bar(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress(range(3), "reading", unit="images")) == [0, 1, 2]
    assert "reading: 100%" in stream.getvalue() and "3/3" in stream.getvalue()


def test_what_has_no_name_says_nothing_and_is_counted(capsys):
    before = module.Progress.made
    assert list(progress(range(3), "")) == [0, 1, 2]
    assert module.Progress.made == before + 3 and capsys.readouterr() == ("", "")
