"""Small rendered photos: the cuisine sets the colours and shapes, the price level the table, quality the light."""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipelines.simulation_world import CUISINES

SIDE = 64  # pixels


def render(rng: np.random.Generator, path: Path, *, cuisine: int, price: int, quality: float) -> None:
    """Write one PNG of SIDE x SIDE pixels to `path`."""
    light = float(np.clip(0.65 + 0.15 * quality, 0.3, 1))
    hue = cuisine / len(CUISINES)
    table = colorsys.hsv_to_rgb(0.08, 0.7 - 0.15 * price, light * (0.35 + 0.12 * price))
    image = Image.new("RGB", (SIDE, SIDE), _bytes(table))
    draw = ImageDraw.Draw(image)
    left, top = rng.integers(4, 12, size=2)
    draw.ellipse((left, top, left + 48, top + 48), fill=_bytes((light, light, light)))
    for _ in range(3 + cuisine % 4):
        x, y = rng.integers(left + 10, left + 32), rng.integers(top + 10, top + 32)
        size = int(rng.integers(5, 11))
        food = _bytes(colorsys.hsv_to_rgb((hue + rng.normal(scale=0.02)) % 1, 0.8, light))
        box = (int(x), int(y), int(x) + size, int(y) + size)
        if cuisine % 3 == 0:
            draw.ellipse(box, fill=food)
        elif cuisine % 3 == 1:
            draw.rectangle(box, fill=food)
        else:
            draw.polygon([(box[0], box[3]), (box[2], box[3]), ((box[0] + box[2]) // 2, box[1])], fill=food)
    image.save(path, format="PNG")


def _bytes(colour: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * min(max(part, 0), 1)) for part in colour)
    return red, green, blue
