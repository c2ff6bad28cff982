"""The figures of Le et al. 2012, tables 1 and 2: percent, of the paper's own 37,000 test images.

Those that a second source confirms are the best neurons; all others are quoted from memory, and
said to be recalled wherever they are printed.
"""
#: Concept -> row -> percent.
TABLE: dict[str, dict[str, float]] = {
    "face": {"chance": 64.8, "random": 67.0, "linear": 74.0, "first": 71.0, "top": 81.7,
             "no lcn": 78.5, "3 layers": 72.3, "6 layers": 70.9, "k-means": 72.5,
             "no faces": 72.5},
    "body": {"chance": 64.8, "random": 66.5, "linear": 68.1, "first": 67.2, "top": 76.7,
             "no lcn": 71.8, "3 layers": 71.2, "6 layers": 69.8, "k-means": 69.3},
    "cat": {"chance": 64.8, "random": 66.0, "linear": 67.8, "first": 67.1, "top": 74.8,
            "no lcn": 69.3, "3 layers": 67.5, "6 layers": 68.3, "k-means": 68.5}}
CONFIRMED = ("top",)
#: How a user may call these concepts.
NAMES = {"faces": "face", "bodies": "body", "human body": "body", "human bodies": "body",
         "person": "body", "people": "body", "cats": "cat", "cat face": "cat", "cat faces": "cat"}


def figure(concept: str, row: str) -> tuple[float, bool] | None:
    """Percent, and whether it is confirmed; None if the paper has no such figure."""
    name = concept.lower().replace("_", " ").replace("-", " ")
    percent = TABLE.get(NAMES.get(name, name), {}).get(row)
    return None if percent is None else (percent, row in CONFIRMED)


def as_text(concept: str, row: str) -> str:
    """The figure for a cell of a table, in brackets if recalled."""
    found = figure(concept, row)
    return "" if found is None else f"{found[0]}" if found[1] else f"({found[0]})"
