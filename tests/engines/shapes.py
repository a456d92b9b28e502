"""Says what is in a picture of tiny-shapes by its pixels alone: colour, background and shape.

Border median = background, median of what differs from it = colour, best overlap with drawn templates = shape.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

COLOURS = {
    "red": (220, 35, 40),
    "green": (40, 165, 70),
    "blue": (40, 75, 215),
    "yellow": (245, 215, 50),
    "purple": (145, 55, 185),
    "orange": (245, 135, 30),
    "cyan": (60, 200, 220),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")

_TABLE = np.array(list(COLOURS.values())) / 255
_RADII = np.linspace(0.14, 0.50, 25)
_TURNS = np.radians([-10.0, -5.0, 0.0, 5.0, 10.0])


class Seen(NamedTuple):
    """What a picture shows; None where nothing stands out from the background."""

    colour: str | None
    background: str
    shape: str | None


def look(pixels: npt.NDArray[np.uint8]) -> Seen:
    """What a picture (height, width, 3) shows."""
    image = pixels.astype(np.float64) / 255
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    ground = np.median(border, axis=0)
    distance = np.linalg.norm(image - ground, axis=-1)
    if (distance > 0.25).sum() < 8:
        return Seen(None, _name(ground), None)
    core = distance > max(0.25, 0.6 * np.sort(distance.ravel())[-10:].mean())
    colour = np.median(image[core], axis=0)
    across = colour - ground
    cover = np.clip(((image - ground) @ across) / (across @ across), 0, 1)
    return Seen(_name(colour), _name(ground), max(SHAPES, key=lambda shape: _overlap(shape, cover)))


def _name(colour: Array) -> str:
    return list(COLOURS)[int(((_TABLE - colour) ** 2).sum(axis=1).argmin())]


def _overlap(shape: str, cover: Array) -> float:
    """Best intersection over union of `cover` with templates of a shape at its centre of mass."""
    size = cover.shape[0]
    rows, columns = np.nonzero(cover > 0.5)
    middle = (columns.mean() + 0.5) / size, (rows.mean() + 0.5) / size
    best = 0.0
    for radius in _RADII:
        for turn in _TURNS:
            drawn = _draw(shape, middle, radius, turn, size)
            if shape in ("triangle", "star"):
                # Their centre of mass is not the centre they are drawn around: draw again, moved by the difference.
                grid = (np.arange(size) + 0.5) / size
                mass = max(drawn.sum(), 1e-3)
                off = (drawn.sum(axis=0) @ grid) / mass, (drawn.sum(axis=1) @ grid) / mass
                drawn = _draw(shape, (2 * middle[0] - off[0], 2 * middle[1] - off[1]), radius, turn, size)
            best = max(best, np.minimum(drawn, cover).sum() / np.maximum(drawn, cover).sum())
    return float(best)


def _draw(shape: str, middle: tuple[float, float], radius: float, turn: float, size: int) -> Array:
    """Cover of each pixel, 0..1, from the signed distance to the shape's edge."""
    grid = (np.arange(size) + 0.5) / size
    dx, dy = np.meshgrid(grid - middle[0], grid - middle[1])
    x, y = math.cos(turn) * dx + math.sin(turn) * dy, math.cos(turn) * dy - math.sin(turn) * dx
    return np.clip(0.5 - _edge_distance(shape, x, y, radius) * size, 0, 1)


def _edge_distance(shape: str, x: Array, y: Array, radius: float) -> Array:
    centre = np.hypot(x, y)
    if shape == "circle":
        return centre - radius
    if shape == "square":
        return np.maximum(abs(x), abs(y)) - 0.85 * radius
    if shape == "ring":
        return abs(centre - 0.75 * radius) - 0.25 * radius
    if shape == "cross":
        bar = 0.30 * radius
        upright = np.maximum(abs(x) - radius, abs(y) - bar)
        return np.minimum(upright, np.maximum(abs(x) - bar, abs(y) - radius))
    if shape == "triangle":
        outer = 1.1 * radius
        return np.maximum.reduce([(math.sqrt(3) * abs(x) - y) / 2 - outer / 2, y - outer / 2, -y - outer])
    sector = 2 * math.pi / 5
    angle = abs(np.mod(np.arctan2(x, -y) + sector / 2, sector) - sector / 2)
    tip, notch = 1.15 * radius, 0.50 * radius
    edge = np.array([notch * math.cos(sector / 2) - tip, notch * math.sin(sector / 2)])
    along, aside = centre * np.cos(angle), centre * np.sin(angle)
    return ((along - tip) * edge[1] - aside * edge[0]) / np.hypot(*edge)
