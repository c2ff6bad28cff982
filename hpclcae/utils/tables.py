"""Tables of text for the terminal."""
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return lines with columns as wide as needed; columns of numbers are aligned to the right."""
    columns = list(zip(*[[str(cell) for cell in row] for row in (header, *rows)]))
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows)
             for i in range(len(header))]
    widths = [max(map(len, column)) for column in columns]
    lines = ["  ".join(cell.rjust(width) if is_right else cell.ljust(width) for cell, width,
                       is_right in zip(line, widths, right)).rstrip() for line in zip(*columns)]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
