"""Lines of metrics: training writes them, and nothing needs them to go on.

A crash cuts lines short or fills them with zeros. Whoever reads metrics takes the lines that are
whole, and passes over the others.
"""
import math
from pathlib import Path
from typing import Any

from hpclcae.utils.reading import reading, whole_objects

Record = dict[str, Any]
_PARTS = "classifier", "validation", "interval"
_NUMBERS = ("seconds", "objective", "images_per_second", "gflop_per_second", "rate")


def metrics_path(run: Path, replica: int = 0) -> Path:
    """The file with a replica's metrics; that of the first one is metrics.jsonl."""
    return run / (f"metrics-replica{replica}.jsonl" if replica else "metrics.jsonl")


def read_content(path: Path) -> bytes:
    """What is in a file of metrics; nothing if there is none.

    Raises
    ------
    InputError
        It cannot be read.
    """
    with reading(path, "a file of metrics", "move it away"):
        return path.read_bytes() if path.exists() else b""


def lines_of_metrics(content: bytes) -> list[tuple[str, Record]]:
    """The lines of metrics that are whole, each with what it says, in the order of the file.

    A record has a ``step``; what else it has of numbers, ``stages``, ``classifier``,
    ``validation`` and ``interval`` are numbers.
    """
    return [(line, record) for line, record in whole_objects(content) if _is_record(record)]


def records(content: bytes, *needed: str) -> list[Record]:
    """What the lines say that have all of `needed`, in order of steps.

    Of a step that was repeated after a resume the last line counts.
    """
    steps = {record["step"]: record for _, record in lines_of_metrics(content)
             if all(key in record for key in needed)}
    return [steps[step] for step in sorted(steps)]


def _is_record(record: Record) -> bool:
    step, stages = record.get("step"), record.get("stages", [])
    parts = [record[key] for key in _PARTS if key in record]
    return (type(step) is int and 0 <= step < 2 ** 53
            and all(isinstance(part, dict) and all(map(_is_number, part.values()))
                    for part in parts)
            and "top1" in record.get("validation", {"top1": 0})
            and all(_is_number(record[key]) for key in _NUMBERS if key in record)
            and isinstance(stages, list)
            and all(stage is None or isinstance(stage, dict) and all(map(_is_number,
                                                                         stage.values()))
                    for stage in stages))


def _is_number(value: object) -> bool:
    return type(value) is float or type(value) is int and math.log2(abs(value) + 1) < 1000
