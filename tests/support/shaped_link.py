"""Predicted steps beside measured ones on two hosts whose cable is as slow as one likes.

    python -m tests.support.shaped_link --shape "tbf rate 1gbit burst 256kb latency 50ms"

As `hpclcae bench plan`, with a rank on each of two namespaces (`two_hosts.py`): both compute on
this machine, and what they exchange goes through the cable, which Linux's `tc` shapes. Needs root.
"""
import argparse
import statistics
import tempfile
from pathlib import Path

from hpclcae.bench.halo import step_in
from hpclcae.bench.plan import CASES, WITHIN, Case
from hpclcae.cluster.machine import load
from hpclcae.utils.tables import table
from tests.support.mpi import MPIEXEC
from tests.support.processes import run_limited
from tests.support.two_hosts import TwoHosts, two_hosts

LIMIT = 300  # seconds of a job


def shape(hosts: TwoHosts, words: str) -> None:
    """Make both ends of the cable slow."""
    for host in (0, 1):
        done = hosts.run(host, "tc", "qdisc", "replace", "dev", "eth0", "root", *words.split())
        assert done.returncode == 0, f"tc ... {words}: {done.stderr}"


def on_hosts(hosts: TwoHosts, *words: str) -> None:
    """Run a benchmark with a rank on each."""
    done = hosts.mpiexec(MPIEXEC, "-m", "hpclcae", "bench", *words, timeout=LIMIT)
    assert done.returncode == 0, done.stderr


def measured(hosts: TwoHosts, case: Case, folder: Path, steps: int) -> float:
    """Seconds of a step."""
    rows = folder / "rows.jsonl"
    rows.unlink(missing_ok=True)
    # a host's folder is not ours
    words = [str(Path(word).absolute()) if word.endswith(".toml") else word for word in case.words]
    on_hosts(hosts, "halo", *words, "--steps", str(steps), "--json", str(rows))
    return step_in(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", required=True, help="words for tc qdisc")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7)
    args = parser.parse_args()
    cases = [Case(name, 2, changes) for name, changes in CASES]
    lines = []
    with tempfile.TemporaryDirectory() as made, two_hosts(Path(made)) as hosts:
        description = Path(made) / "machine.toml"
        for words in args.shape:
            shape(hosts, words)
            found: list[list[tuple[float, float]]] = [[] for _ in cases]
            for _ in range(args.repeat):
                alone = run_limited([*hosts.enter(0), "hpclcae", "bench", "machine", "--ranks",
                                     "--repeat", "3", "--out", str(description)], LIMIT)
                assert alone.returncode == 0, alone.stderr
                on_hosts(hosts, "machine", "--repeat", "3", "--out", str(description))
                machine = load(description)
                for case, pairs in zip(cases, found):
                    pairs.append((case.predicted(machine, per_node=1).seconds,
                                  measured(hosts, case, Path(made), args.steps)))
            for case, pairs in zip(cases, found):
                ratios = sorted(predicted / seconds for predicted, seconds in pairs)
                lines.append((words, str(case),
                              1e3 * statistics.median(seconds for _, seconds in pairs),
                              1e3 * statistics.median(predicted for predicted, _ in pairs),
                              statistics.median(ratios), ratios[0], ratios[-1]))
    print(table([("cable", ""), ("", ""), ("measured, ms", ",.2f"), ("predicted", ",.2f"),
                 ("predicted / measured", ".2f"), ("least", ".2f"), ("most", ".2f")], lines))
    right = sum(abs(line[4] - 1) <= WITHIN for line in lines)
    print(f"\n{right} of {len(lines)} within {100 * WITHIN:.0f} %")


if __name__ == "__main__":
    main()
