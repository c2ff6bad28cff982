"""Reading what commands print."""
import re


def cells(lines):
    """Rows of a table by their first cell."""
    return {row[0]: row[1:] for row in (re.split(r"  +", line.strip()) for line in lines) if row}
