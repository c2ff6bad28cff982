"""Tables of text for the terminal."""
from collections.abc import Sequence


def table(columns: Sequence[str | tuple[str, str]], rows: Sequence[Sequence[object]],
          rule: bool = True) -> str:
    """Return lines of text with columns as wide as needed.

    Parameters
    ----------
    columns : sequence of str or (str, str)
        Header of every column, or header and format: that of format(). Columns with a format are
        aligned to the right, ">" is enough for text; so are columns without one that hold only
        numbers.
    rows : sequence of sequences
        Cells.
    rule : bool
        Whether a line of dashes stands below the header.
    """
    headers = [column if isinstance(column, str) else column[0] for column in columns]
    formats = [_alignment([row[i] for row in rows]) if isinstance(column, str) else column[1]
               for i, column in enumerate(columns)]
    cells = [headers, *([format(cell, form) for cell, form in zip(row, formats)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(cell.rjust(width) if form else cell.ljust(width)
                       for cell, width, form in zip(line, widths, formats)).rstrip()
             for line in cells]
    return "\n".join([lines[0], *["  ".join("-" * width for width in widths)] * rule, *lines[1:]])


def summed(names: Sequence[str], shown: int = 3) -> str:
    """Name the first few of many things, and count the others."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _alignment(cells: Sequence[object]) -> str:
    """The format that aligns numbers to the right and everything else to the left."""
    return ">" if cells and all(isinstance(cell, (int, float)) for cell in cells) else ""
