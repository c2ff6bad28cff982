"""How large faces are in composed frames and where they lie: it decides what a test measures."""
from typing import Any

CENTRED = 0.08  # things in the centre of a frame are off by up to this share of it


def framing(recipe: dict[str, Any]) -> str:
    """Say it in a few words, from the settings that are stored with composed frames."""
    concept = recipe.get("concept", "faces")
    if not recipe["heads"] and not (recipe["faces"] and concept == "faces"):
        return f"no {concept}"
    # older files know two places
    reach = recipe.get("reach", None if recipe.get("anywhere") else CENTRED)
    if reach is None:
        where = "anywhere (whole)"
    elif reach <= CENTRED:
        where = f"centred (+-{reach:.2f})"
    else:
        where = f"up to {reach:.2f} off the middle"
    low, high = recipe["face_size"]
    shown = concept if concept == "faces" else f"{concept} (rendered)"
    return f"{shown} {low:.2f} to {high:.2f} of the frame, {where}"
