"""How a run with parameter servers went: replicas.png and survival.png of ``hpclcae figures``.

Drawn from parallel.json (what every rank said of itself at the end; mpi/job.py), the metrics of
every replica and, of a surviving job, what happened to it (survive/history.py).
"""
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpclcae.parameter_server.store import STALENESS_BINS
from hpclcae.survive.history import absences
from hpclcae.utils.reading import reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FETCHED, PUSHED, SERVER, WORKER = "#1b6ca8", "#d95f02", "#7b3fa0", "#6f8f3f"
MOST_CURVES = 10  # that a legend names one by one
MOST_LABELS = 16  # under the bars


def read_parallel(folder: Path) -> list[dict[str, Any]]:
    """What every rank of the newest job said: workers by replica and block, then servers.

    Raises
    ------
    InputError
        The file is damaged.
    """
    file = folder / "parallel.json"
    with reading(file, "what the ranks of a job said", "hpclcae train --resume writes it again"):
        ranks = [_checked(rank) for rank in json.loads(file.read_bytes())]
        ranks.sort(key=lambda rank: (is_server(rank),
                                     [int(w) for w in rank["role"].split() if w.isdigit()]))
        workers = [rank["role"] for rank in ranks if not is_server(rank)]
        replicas = 1 + max(int(role.split()[1]) for role in workers)
        if workers != [f"replica {replica} block {block}" for replica in range(len(workers))
                       for block in range(len(workers) // replicas)][:len(workers)]:
            raise ValueError("workers are missing")
        return ranks


def _checked(rank: dict[str, Any]) -> dict[str, Any]:
    """What a rank said, if it is complete.

    Raises
    ------
    KeyError, TypeError, ValueError
        It is not.
    """
    numbers = ["seconds", "cpu_seconds", "wait_seconds"]
    if not re.fullmatch(r"server \d{1,6}", rank["role"]):
        numbers += ["steps", "fetched_bytes", "pushed_bytes", "training_seconds"]
        if not re.fullmatch(r"replica \d{1,6} block \d{1,6}", rank["role"]):
            raise ValueError("a rank has no role")
    counts = rank.get("staleness", [])
    if (not all(type(rank[key]) in (int, float) and 0 <= rank[key] < 1e300 for key in numbers)
            or len(counts) not in (0, STALENESS_BINS)
            or not all(type(count) is int and 0 <= count < 2 ** 53 for count in counts)):
        raise ValueError(f"what {rank['role']} said is not complete")
    return rank | {"transport": str(rank["transport"]), "staleness": counts}


def is_server(rank: dict[str, Any]) -> bool:
    """Whether a rank was a server, or else a worker."""
    return rank["role"].startswith("server")


def draw_replicas(figure: "Figure", ranks: list[dict[str, Any]],
                  metrics: list[list[dict[str, Any]]]) -> "Figure":
    """Objectives of all replicas; staleness, waiting, bytes and processor time of all ranks.

    Parameters
    ----------
    metrics : list of list of dict
        Of every replica, in order of steps.
    """
    workers = [rank for rank in ranks if not is_server(rank)]
    panels = figure.subplots(2, 3)
    _draw_objectives(panels[0, 0], "step", "replica's step", metrics)
    _draw_objectives(panels[0, 1], "seconds", "seconds of training", metrics)
    _draw_staleness(panels[0, 2], ranks)
    _draw_waiting(panels[1, 0], workers)
    _draw_bytes(panels[1, 1], workers)
    _draw_processor_time(panels[1, 2], ranks)
    return figure


def _draw_objectives(axes: "Axes", key: str, label: str,
                     metrics: list[list[dict[str, Any]]]) -> None:
    for number, records in enumerate(metrics):
        axes.plot([r[key] for r in records], [r["objective"] for r in records], linewidth=1.2,
                  label=f"replica {number}" if len(metrics) <= MOST_CURVES else None)
    if all(record["objective"] > 0 for records in metrics for record in records):
        axes.set_yscale("log")
    axes.set(title=f"objective against the {label}", xlabel=label)
    axes.grid(alpha=0.3)
    if len(metrics) <= MOST_CURVES:
        axes.legend()


def _draw_staleness(axes: "Axes", ranks: list[dict[str, Any]]) -> None:
    """Servers count it; workers did, in older runs with one-sided sums."""
    counts = np.zeros(STALENESS_BINS, np.int64)
    for rank in ranks:
        if rank["staleness"]:
            counts += np.array(rank["staleness"])
    last = int(np.flatnonzero(counts).max(initial=0))
    share = 100 * counts[:last + 1] / max(1, counts.sum())
    axes.bar(np.arange(last + 1), share, color=SERVER, width=0.9)
    mean = (counts * np.arange(STALENESS_BINS)).sum() / max(1, counts.sum())
    more = f" ({STALENESS_BINS - 1}: or more)" if last == STALENESS_BINS - 1 else ""
    axes.set(title=f"staleness of the gradients, mean {mean:.2f}",
             xlabel=f"updates between fetch and push{more}",
             ylabel=f"percent of {counts.sum():,} pushes of chunks")
    axes.locator_params(axis="x", integer=True)


def _draw_waiting(axes: "Axes", workers: list[dict[str, Any]]) -> None:
    shares = [100 * w["wait_seconds"] / max(w["training_seconds"], 1e-9) for w in workers]
    _bars(axes, workers, [(shares, WORKER, None)])
    axes.set(title="time that workers waited for parameters", ylabel="percent of training time")


def _draw_bytes(axes: "Axes", workers: list[dict[str, Any]]) -> None:
    rates = [([w[f"{name}_bytes"] / max(1, w["steps"]) / 1e6 for w in workers], colour, name)
             for name, colour in (("fetched", FETCHED), ("pushed", PUSHED))]
    _bars(axes, workers, rates)
    axes.set(title="sent between workers and servers", ylabel="MB per step")


def _draw_processor_time(axes: "Axes", ranks: list[dict[str, Any]]) -> None:
    shares = [100 * rank["cpu_seconds"] / max(rank["seconds"], 1e-9) for rank in ranks]
    _bars(axes, ranks,
          [([0 if is_server(r) else s for r, s in zip(ranks, shares)], WORKER, "workers"),
           ([s if is_server(r) else 0 for r, s in zip(ranks, shares)], SERVER, "servers")],
          beside=False)
    axes.set(title="processor time of every rank", ylabel="percent of wall time")


def _bars(axes: "Axes", ranks: list[dict[str, Any]],
          series: Sequence[tuple[Sequence[float], str, str | None]], beside: bool = True) -> None:
    """A bar, or several beside each other, for every rank."""
    width = 0.8 / (len(series) if beside else 1)
    for number, (values, colour, label) in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * width if beside else 0
        axes.bar(np.arange(len(ranks)) + shift, values, width=width, color=colour, label=label)
    shown = range(0, len(ranks), -(-len(ranks) // MOST_LABELS))
    axes.set_xticks(shown, [_short(ranks[i]["role"]) for i in shown],
                    rotation=45 if len(shown) > 6 else 0)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3, axis="y")
    if len(series) > 1:
        axes.set_ylim(top=1.2 * axes.get_ylim()[1])  # room for the legend
        axes.legend(loc="upper right", ncols=len(series))


def _short(role: str) -> str:
    """replica 1 block 0: r1 b0; server 2: s2."""
    words = role.split()
    return " ".join(word[0] + number for word, number in zip(words[::2], words[1::2]))


def draw_survival(figure: "Figure", rows: Sequence[dict[str, Any]],
                  metrics: Mapping[int, Sequence[dict[str, Any]]]) -> "Figure":
    """Who was away, and when; below, how fast the replicas were.

    Parameters
    ----------
    rows : events of the run (survive/history.py)
    metrics : mapping of int to sequence of records
        Of each replica.
    """
    seconds = max(lines[-1]["seconds"] for lines in metrics.values())
    away = absences(rows)
    upper, lower = figure.subplots(2, 1, sharex=True)
    servers = sorted({row["who"] for row in rows if row["kind"] == "server"}, reverse=True)
    names = [*servers, *(f"replica {replica}" for replica in sorted(metrics, reverse=True))]
    for place, who in enumerate(names):
        colour = SERVER if who in servers else WORKER
        upper.barh(place, seconds, color=colour, height=0.6, alpha=0.35)
        gone = [(absence.begin, min(absence.end, seconds) - absence.begin) for absence in away
                if absence.who == who and absence.begin < seconds]
        upper.broken_barh(gone, (place - 0.3, 0.6), color=PUSHED)
        failed = [row["seconds"] for row in rows if row["who"] == who and row["kind"] != "join"]
        upper.plot(failed, [place] * len(failed), "x", color="black", markersize=6)
    upper.set_yticks(range(len(names)), names)
    upper.set_title("x: a failure (or a farewell); orange: time without the replica", fontsize=10)
    for replica, lines in metrics.items():
        told = [line for line in lines if "images_per_second" in line]
        lower.plot([line["seconds"] for line in told],
                   [line["images_per_second"] for line in told], linewidth=1.2,
                   label=f"replica {replica}")
    lower.set(xlabel="seconds of the job", ylabel="images/s", ylim=(0, None), xlim=(0, seconds))
    if len(metrics) <= MOST_CURVES:
        lower.legend(fontsize=8)
    return figure
