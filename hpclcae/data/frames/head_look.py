"""What shapes do not say about a head: skin, hair, eyes, clothes, and the light on them.

Every pixel is coloured from where its point lies on the *neutral* head, in head heights from the
point between the eyes (x to the head's left, y up, z forwards). There an eyebrow, a hairline, an
iris is at the same place for everybody, so each is a few lines.
"""
from dataclasses import dataclass

import numpy as np

from hpclcae.data.frames.head_mesh import CURTAIN, EYE, LASH, MASKS, MOUTH, SKIN, TEETH

SKINS = np.array([[62, 40, 30], [115, 76, 56], [172, 124, 97], [216, 170, 143],
                  [240, 205, 186]]) / 255
HAIRS = np.array([[20, 17, 16], [50, 34, 26], [96, 66, 44], [184, 146, 98], [146, 72, 40],
                  [178, 174, 172]]) / 255
IRISES = np.array([[50, 32, 22], [92, 60, 36], [84, 110, 70], [92, 128, 160]]) / 255
LIP, GUM, TOOTH, WHITE, RIM = np.array([[176, 84, 84], [90, 30, 32], [226, 220, 206],
                                        [200, 194, 189], [20] * 3]) / 255
EYE_AT, IRIS, PUPIL = 0.127, 0.031, 0.013  # x of an eye, radii
#: Height of the hair's edge from behind the nape round the ear to the temple; further in front: the
#: hairline.
EDGE_Z, EDGE_Y = [-0.50, -0.38, -0.30, -0.19, -0.13, -0.02], [-0.24, -0.12, -0.10, 0.04, 0.17]


@dataclass(frozen=True)
class Look:
    """Colours are red, green, blue from 0 to 1; lengths in head heights, heights from the eyes."""
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    clothes: np.ndarray
    hairline: float   # height of the hair above the middle of the forehead
    recession: float  # how much it draws back from the temples
    nape: float       # height at which it ends at the back
    thickness: float  # of the hair on the skull
    curl: float       # 0 straight strands, 1 curls
    bald: float       # no hair above this height; above the crown: hair everywhere
    curtain: float    # how far long hair falls below the eyes; 0 for short hair
    parted: float     # half the width of the face that long hair leaves open
    beard: float      # 0 none, 1 full
    brow: float       # half the thickness of the eyebrows
    glasses: float    # radius of the rims; 0 for none
    phase: np.ndarray  # (3,): where strands and spots lie


def random_look(rng: np.random.Generator, male: float, old: float,
                origins: dict[str, float]) -> Look:
    """Return a random look that suits someone `male`, so `old`, of these `origins` (all 0 to 1)."""
    fair = origins["caucasian"]
    tone = np.clip(3.4 * fair + 2.6 * origins["asian"] + 0.6 * origins["african"]
                   + rng.normal(0, 0.45), 0, 4)
    shades = np.array([4, 2.5 + fair, 2.5 * fair, 2.0 * fair, 0.6 * fair, 2.5 * old])
    long = rng.random() < 0.7 - 0.62 * male
    glasses = rng.random() < 0.15 + 0.2 * old
    return Look(
        skin=_between(SKINS, tone) * rng.uniform(0.97, 1.03, 3),
        hair=HAIRS[rng.choice(len(HAIRS), p=shades / shades.sum())] * rng.uniform(0.7, 1.15),
        iris=IRISES[rng.choice(4, p=[0.7 - 0.5 * fair, 0.3 - 0.1 * fair, 0.2 * fair, 0.4 * fair])],
        clothes=rng.uniform(0.05, 0.95) * rng.uniform(0.6, 1.0, 3), hairline=rng.uniform(0.15, 0.20)
        if rng.random() < 0.2 else rng.uniform(0.25, 0.36) + 0.05 * old,
        recession=rng.uniform(0, 0.12) * (male + old), nape=rng.uniform(-0.5, -0.3),
        thickness=rng.uniform(0.03, 0.05) if long else rng.uniform(0.01, 0.08),
        curl=float(rng.random() < 0.15 + 0.6 * origins["african"]), bald=rng.uniform(0.05, 0.4)
        if not long and rng.random() < male * (0.1 + 0.4 * old) else 1.0,
        curtain=rng.uniform(0.3, 1.0) if long else 0.0, parted=rng.uniform(0.19, 0.28),
        beard=rng.uniform(0.2, 1.0) if rng.random() < 0.45 * male else 0.0,
        brow=rng.uniform(0.008, 0.016) + 0.006 * male,
        glasses=rng.uniform(0.085, 0.105) if glasses else 0.0, phase=rng.uniform(0, 2 * np.pi, 3))


def hair_grown(place: np.ndarray, masks: np.ndarray, look: Look, soft: float) -> np.ndarray:
    """Say how much hair grows at places (pixel, 3) of the skull: (pixel,), from 0 to 1.

    It is 1 from `soft` behind the edge on.
    """
    x, y, z = place.T
    front = look.hairline + 0.008 * np.sin(45 * x + look.phase[0])
    front += look.recession * np.clip(np.abs(x) / 0.2 - 0.3, 0, 1)
    edge = np.interp(z, EDGE_Z, [look.nape, *EDGE_Y])
    edge = edge + (front - edge) * _step(z, -0.06, 0.03)
    bare = np.maximum(masks[:, MASKS.index("ears")], masks[:, MASKS.index("lips")])
    below_crown = _step(y, look.bald + 0.03, look.bald - 0.03)
    return _step(y, edge - 0.015, edge + soft) * (1 - bare) * below_crown


def curtain_hangs(place: np.ndarray, look: Look) -> np.ndarray:
    """Say where long hair hangs: bool (pixel,) for places (pixel, 3) on the curtain."""
    x, y, z = place.T
    ragged = 0.03 * np.sin(60 * x + look.phase[0]) * np.sin(23 * z + look.phase[1])
    narrow = np.abs(x) < look.parted + 0.06 * np.clip(-y, 0, 1) + 0.2 * ragged
    open_face = (y < look.hairline + 0.1) & np.where(narrow, z > -0.3, z > -0.08)
    return ~open_face & (y > ragged - look.curtain)


def paint(place: np.ndarray, masks: np.ndarray, part: np.ndarray,
          look: Look) -> tuple[np.ndarray, np.ndarray]:
    """Colour the points of a head.

    Parameters
    ----------
    place : float array (pixel, 3)
        On the neutral head.
    masks : float array (pixel, mask)
        The face, the lips, ... at the pixel.
    part : int array (pixel,)
        SKIN, EYE, ...

    Returns
    -------
    colour : float array (pixel, 3)
    gloss : float array (pixel,)
        How much of a mirror the surface is.
    """
    lips = masks[:, MASKS.index("lips")]
    strands = look.hair * _strands(place, look)[:, None]
    spots = 1 + 0.03 * np.sin(place * [31, 37, 29] + look.phase).prod(1)
    skin = _blend(look.skin * spots[:, None], LIP * (0.35 + 0.75 * look.skin), 0.7 * lips)
    hair = np.maximum.reduce([_hair(place, masks, look), _beard(place, look) * (1 - lips),
                              0.8 * _brows(place, look)])
    skin = _blend(skin, strands, hair)
    collar = -0.62 + 0.4 * np.clip(np.abs(place[:, 0]) - 0.2, 0,
                                   0.3) + 0.5 * np.clip(-0.35 - place[:, 2], 0, 0.2)
    skin = _blend(skin, look.clothes, _step(place[:, 1], collar + 0.01, collar - 0.01))
    if look.glasses:
        skin = _blend(skin, RIM, _rims(place, look))
    colour = skin
    for kind, shade in ((EYE, _eyeball(place, look)), (LASH, 0.4 * look.hair), (MOUTH, GUM),
                        (TEETH, TOOTH), (CURTAIN, strands)):
        colour = np.where((part == kind)[:, None], shade, colour)
    hairy = np.where(part == SKIN, hair, part == CURTAIN)
    gloss = np.where(part == EYE, 0.5, 0.10 + 0.08 * hairy * (1 - look.curl))
    return colour, gloss


def illuminate(colour: np.ndarray, gloss: np.ndarray, normals: np.ndarray, occlusion: np.ndarray,
               light: np.ndarray) -> np.ndarray:
    """Light points of `colour` and unit `normals`, seen from +z; arrays (pixel, 3), from 0 to 1.

    A key light from `light`, softened past its edge as skin does, light from all around that
    hollows (`occlusion`, (pixel,)) receive less of, and a highlight.
    """
    light = light / (np.linalg.norm(light) + 1e-9)
    normals = normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)
    key = np.clip((normals @ light + 0.25) / 1.25, 0, 1)
    around = 0.75 + 0.25 * normals[:, 1]
    halfway = light + [0, 0, 1]
    highlight = np.clip(normals @ (halfway / (np.linalg.norm(halfway) + 1e-9)), 0, 1) ** 20
    shade = 0.50 * around * occlusion + 0.80 * key * (0.3 + 0.7 * occlusion)
    return np.clip(colour * shade[:, None] + (gloss * highlight * occlusion)[:, None], 0, 1)


def _eyeball(place: np.ndarray, look: Look) -> np.ndarray:
    """Colour an eye: white, iris, pupil."""
    radius = np.hypot(np.abs(place[:, 0]) - EYE_AT, place[:, 1])
    ball = _blend(np.tile(WHITE, (len(place), 1)), look.iris,
                  _step(radius, IRIS + 0.003, IRIS - 0.003))
    return _blend(ball, np.full(3, 0.03), _step(radius, PUPIL + 0.002, PUPIL - 0.002))


def _rims(place: np.ndarray, look: Look) -> np.ndarray:
    """Say where glasses cover the skin: round rims, a bridge, and sides to the ears."""
    side, y, z = np.abs(place[:, 0]) - EYE_AT, place[:, 1], place[:, 2]
    rims = _step(np.abs(np.hypot(side, y) - look.glasses), 0.011, 0.006)
    bridge_and_sides = _step(np.abs(y - 0.02), 0.009, 0.005) * (np.abs(side) > look.glasses)
    return np.maximum(rims, bridge_and_sides) * (z > -0.22)


def _brows(place: np.ndarray, look: Look) -> np.ndarray:
    """Say where the eyebrows are: an arch over each eye that falls on the outer side."""
    side, y, z = np.abs(place[:, 0]) - EYE_AT, place[:, 1], place[:, 2]
    arch = 0.098 + 0.012 * np.cos(18 * side) - 0.25 * np.clip(side - 0.03, 0, 1)
    across = _step(np.abs(y - arch), look.brow, 0.4 * look.brow)
    return across * _step(np.abs(side + 0.005), 0.09, 0.06) * (z > -0.1)


def _hair(place: np.ndarray, masks: np.ndarray, look: Look) -> np.ndarray:
    """Say where hair covers the skin.

    Behind long hair everywhere, because its gaps show more hair.
    """
    covered = hair_grown(place, masks, look, 0.015)
    if not look.curtain:
        return covered
    _, y, z = place.T
    return np.maximum(covered,
                      (y > -min(0.5, look.curtain)) & (z < np.where(y > -0.25, -0.16, -0.45)))


def _beard(place: np.ndarray, look: Look) -> np.ndarray:
    """Say where a beard grows: cheeks below a line from ear to nose, chin, and upper lip."""
    x, y, z = place.T
    edge = -0.15 - 0.7 * np.clip(0.25 - np.abs(x), 0, 0.12)
    below = _step(y, edge + 0.04, edge - 0.06) * _step(y, -0.56, -0.50) * (z > -0.28)
    moustache = _step(np.abs(y + 0.185), 0.022, 0.010) * _step(np.abs(x), 0.11, 0.08) * (z > 0)
    return look.beard * np.maximum(below, moustache)


def _strands(place: np.ndarray, look: Look) -> np.ndarray:
    """Brightness of hair around 1: straight strands run down from the crown, curls go every way."""
    x, y, z = place.T
    around = np.arctan2(x, z + 0.28)
    straight = np.sin(23 * around + 4 * np.sin(5 * y + look.phase[0]))
    straight = straight + np.sin(57 * around + 3 * y + look.phase[1])
    warp = 2.5 * np.sin(21 * place[:, [1, 2, 0]] + look.phase)
    curls = 2 * np.sin(50 * place + warp).prod(1)
    return 1 + 0.13 * (straight * (1 - look.curl) + curls * look.curl)


def _step(value: np.ndarray, none: np.ndarray | float, full: np.ndarray | float) -> np.ndarray:
    """Rise smoothly from 0 at `none` to 1 at `full`."""
    share = np.clip((value - none) / (full - none), 0, 1)
    return share * share * (3 - 2 * share)


def _blend(under: np.ndarray, over: np.ndarray, share: np.ndarray) -> np.ndarray:
    return under + (over - under) * share[:, None]


def _between(table: np.ndarray, at: float) -> np.ndarray:
    return np.array([np.interp(at, np.arange(len(table)), column) for column in table.T])
