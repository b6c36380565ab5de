"""The things in a scene, each drawn on a transparent tile that is cropped to exactly what was drawn.

Every function takes a random generator and the height in pixels of the tile and returns an RGBA picture; a
label is then the place where the tile was put, with nothing to estimate. Shapes are given in (u, v) from the
tile's top left corner, both in units of the tile's own width and height.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "bench",
    "bin_",
    "bush",
    "car_end",
    "car_side",
    "cone",
    "hydrant",
    "lamp_post",
    "person",
    "road_sign",
    "tree",
]

Color = tuple[int, int, int]
Point = tuple[float, float]

_CAR_PAINTS: tuple[Color, ...] = (
    (196, 30, 38), (28, 74, 150), (238, 238, 236), (32, 34, 38), (150, 155, 160), (206, 168, 60),
    (24, 110, 84), (222, 110, 34), (92, 128, 168), (112, 28, 52), (70, 76, 84), (116, 162, 92),
)  # fmt: skip
_CLOTHES: tuple[Color, ...] = (
    (190, 44, 48), (36, 80, 160), (236, 190, 60), (40, 120, 76), (232, 232, 228), (44, 46, 54),
    (150, 70, 140), (222, 122, 50), (92, 170, 190), (128, 92, 62), (210, 130, 150), (84, 92, 104),
)  # fmt: skip
_TROUSERS: tuple[Color, ...] = ((38, 48, 78), (34, 34, 38), (110, 100, 84), (70, 82, 60), (84, 88, 96))
_SKIN: tuple[Color, ...] = ((240, 204, 174), (222, 172, 134), (176, 122, 84), (122, 80, 54), (86, 56, 40))
_HAIR: tuple[Color, ...] = ((34, 26, 22), (92, 60, 34), (188, 148, 84), (128, 126, 124), (60, 40, 30))


def _shade(color: Color, factor: float) -> Color:
    """Darken (factor < 1) or lighten towards white (factor > 1)."""
    if factor <= 1:
        return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))
    mix = min(factor - 1, 1.0)
    return (
        int(color[0] + (255 - color[0]) * mix),
        int(color[1] + (255 - color[1]) * mix),
        int(color[2] + (255 - color[2]) * mix),
    )


def _pick(rng: np.random.Generator, colors: Sequence[Color]) -> Color:
    """One of the colours, a little off, so that no two objects are alike."""
    base = np.asarray(colors[int(rng.integers(len(colors)))], dtype=float)
    jittered = np.clip(base + rng.normal(0, 8, 3), 0, 255)
    return (int(jittered[0]), int(jittered[1]), int(jittered[2]))


def _smooth(points: Sequence[Point], rounds: int = 2) -> list[Point]:
    """Round the corners of a closed polygon by cutting each corner, `rounds` times (Chaikin)."""
    current = list(points)
    for _ in range(rounds):
        cut: list[Point] = []
        for (x0, y0), (x1, y1) in zip(current, current[1:] + current[:1], strict=True):
            cut.append((0.82 * x0 + 0.18 * x1, 0.82 * y0 + 0.18 * y1))
            cut.append((0.18 * x0 + 0.82 * x1, 0.18 * y0 + 0.82 * y1))
        current = cut
    return current


@dataclass(slots=True)
class _Tile:
    """A transparent canvas addressed in its own units."""

    image: Image.Image
    draw: ImageDraw.ImageDraw

    @classmethod
    def blank(cls, height: float, aspect: float) -> _Tile:
        image = Image.new("RGBA", (max(round(height * aspect), 3), max(round(height), 3)))
        return cls(image, ImageDraw.Draw(image))

    def at(self, point: Point) -> Point:
        return (point[0] * (self.image.width - 1), point[1] * (self.image.height - 1))

    def polygon(self, points: Sequence[Point], fill: Color, *, rounds: int = 0) -> None:
        self.draw.polygon([self.at(p) for p in _smooth(points, rounds)], fill=fill)

    def box(self, u0: float, v0: float, u1: float, v1: float, fill: Color, *, radius: float = 0.0) -> None:
        """Draw a box; `radius` is in units of the tile's height."""
        corners = (self.at((u0, v0)), self.at((u1, v1)))
        if corners[1][0] - corners[0][0] < 1 or corners[1][1] - corners[0][1] < 1:
            self.draw.rectangle(corners, fill=fill)
        else:
            self.draw.rounded_rectangle(corners, radius=radius * self.image.height, fill=fill)

    def disc(self, center: Point, radius: float, fill: Color, *, squash: float = 1.0) -> None:
        """Draw a disc with its radius in units of the tile's height; `squash` narrows it horizontally."""
        x, y = self.at(center)
        r = radius * self.image.height
        self.draw.ellipse((x - r * squash, y - r, x + r * squash, y + r), fill=fill)

    def limb(self, points: Sequence[Point], thickness: float, fill: Color) -> None:
        """Draw a line with round joints; `thickness` is in units of the tile's height."""
        width = max(thickness * self.image.height, 1.0)
        ends = [self.at(p) for p in points]
        self.draw.line(ends, fill=fill, width=max(round(width), 1))
        for x, y in ends:
            self.draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=fill)

    def lit(self, rng: np.random.Generator, *, strength: float = 0.3) -> Image.Image:
        """Crop to what was drawn and shade it: lighter above, darker below and on one side."""
        box = self.image.getbbox()
        image = self.image.crop(box) if box else self.image
        array = np.asarray(image).astype(np.float32)
        height, width = array.shape[:2]
        down = np.linspace(strength * 0.55, -strength, height, dtype=np.float32)[:, None]
        across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :] * strength * rng.choice((-1.0, 1.0))
        array[..., :3] *= (1 + down + across)[..., None]
        return Image.fromarray(np.clip(array, 0, 255).astype(np.uint8), "RGBA")


_SIDE_BODIES: dict[str, tuple[float, tuple[Point, ...], tuple[tuple[Point, ...], ...], tuple[float, float]]] = {
    # name: (aspect, outline, windows, wheel positions)
    "sedan": (
        2.75,
        ((0.0, 0.62), (0.02, 0.50), (0.20, 0.42), (0.33, 0.06), (0.40, 0.0), (0.62, 0.0), (0.70, 0.06),
         (0.82, 0.38), (0.96, 0.44), (1.0, 0.58), (0.99, 0.84), (0.01, 0.84)),
        (((0.27, 0.40), (0.36, 0.10), (0.50, 0.09), (0.50, 0.40)),
         ((0.53, 0.40), (0.53, 0.09), (0.64, 0.10), (0.75, 0.40))),
        (0.20, 0.79),
    ),
    "hatchback": (
        2.35,
        ((0.0, 0.64), (0.02, 0.52), (0.21, 0.44), (0.36, 0.05), (0.44, 0.0), (0.82, 0.0), (0.91, 0.05),
         (0.98, 0.42), (1.0, 0.60), (0.99, 0.85), (0.01, 0.85)),
        (((0.28, 0.42), (0.40, 0.10), (0.56, 0.09), (0.56, 0.42)),
         ((0.59, 0.42), (0.59, 0.09), (0.80, 0.10), (0.90, 0.42))),
        (0.21, 0.80),
    ),
    "van": (
        2.15,
        ((0.0, 0.66), (0.02, 0.46), (0.12, 0.38), (0.24, 0.03), (0.30, 0.0), (0.95, 0.0), (0.99, 0.04),
         (1.0, 0.60), (0.99, 0.87), (0.01, 0.87)),
        (((0.17, 0.38), (0.27, 0.09), (0.42, 0.09), (0.42, 0.38)),
         ((0.46, 0.36), (0.46, 0.09), (0.68, 0.09), (0.68, 0.36)),
         ((0.72, 0.36), (0.72, 0.09), (0.93, 0.09), (0.94, 0.36))),
        (0.20, 0.80),
    ),
    "pickup": (
        2.80,
        ((0.0, 0.62), (0.02, 0.48), (0.22, 0.40), (0.32, 0.05), (0.38, 0.0), (0.52, 0.0), (0.58, 0.04),
         (0.62, 0.38), (0.98, 0.38), (1.0, 0.44), (0.99, 0.83), (0.01, 0.83)),
        (((0.27, 0.38), (0.35, 0.10), (0.44, 0.09), (0.44, 0.38)),
         ((0.47, 0.38), (0.47, 0.09), (0.53, 0.10), (0.57, 0.38))),
        (0.20, 0.80),
    ),
}  # fmt: skip
_GLASS: Color = (66, 84, 100)


def car_side(rng: np.random.Generator, height: float) -> Image.Image:
    """A car seen from its side, facing left or right."""
    aspect, outline, windows, wheels = _SIDE_BODIES[str(rng.choice(list(_SIDE_BODIES)))]
    tile = _Tile.blank(height, aspect * rng.uniform(0.95, 1.06))
    paint = _pick(rng, _CAR_PAINTS)
    tile.polygon(outline, paint, rounds=2)
    tile.polygon([(u, max(v, 0.66)) for u, v in outline], _shade(paint, 0.78), rounds=1)
    tile.box(0.03, 0.46, 0.97, 0.48, _shade(paint, 1.25))
    for window in windows:
        tile.polygon(window, _GLASS, rounds=1)
        (u0, v0), (u1, v1) = window[0], window[1]
        tile.polygon(((u1, v1), (u1 + 0.05, v1), (u0 + 0.05, v0), (u0, v0)), _shade(_GLASS, 1.35), rounds=1)
    for u in (0.51, 0.24 if rng.random() < 0.5 else 0.77):
        tile.box(u - 0.003, 0.44, u + 0.003, 0.80, _shade(paint, 0.6))
    tile.box(0.55, 0.51, 0.60, 0.535, _shade(paint, 0.5))
    tile.box(0.005, 0.50, 0.05, 0.60, (252, 244, 200), radius=0.03)
    tile.box(0.955, 0.48, 0.995, 0.60, (196, 24, 24), radius=0.03)
    radius = rng.uniform(0.17, 0.19)
    for u in wheels:
        tile.disc((u, 0.82), radius + 0.025, _shade(paint, 0.35))
        tile.disc((u, 1 - radius), radius, (26, 26, 28))
        tile.disc((u, 1 - radius), radius * 0.58, (168, 170, 174))
        tile.disc((u, 1 - radius), radius * 0.18, (70, 70, 74))
    image = tile.lit(rng)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def car_end(rng: np.random.Generator, height: float, *, rear: bool) -> Image.Image:
    """A car seen from behind (`rear`) or from the front."""
    tile = _Tile.blank(height, rng.uniform(1.12, 1.32))
    paint = _pick(rng, _CAR_PAINTS)
    roof = rng.uniform(0.0, 0.04)
    for u in (0.06, 0.76):
        tile.box(u, 0.72, u + 0.18, 1.0, (24, 24, 26), radius=0.04)
    inset = rng.uniform(0.14, 0.2)
    tile.polygon(
        ((0.0, 0.52), (0.06, 0.40), (inset, 0.04 + roof), (inset + 0.08, 0.0), (0.92 - inset, 0.0),
         (1 - inset, 0.04 + roof), (0.94, 0.40), (1.0, 0.52), (1.0, 0.86), (0.96, 0.90), (0.04, 0.90), (0.0, 0.86)),
        paint, rounds=2,
    )  # fmt: skip
    tile.polygon(((inset + 0.02, 0.09), (0.98 - inset, 0.09), (0.88, 0.39), (0.12, 0.39)), _GLASS, rounds=1)
    tile.polygon(((inset + 0.10, 0.10), (inset + 0.24, 0.10), (0.34, 0.38), (0.20, 0.38)), _shade(_GLASS, 1.3))
    tile.box(0.03, 0.74, 0.97, 0.88, _shade(paint, 0.62), radius=0.04)
    if rear:
        for u in (0.02, 0.80):
            tile.box(u, 0.48, u + 0.18, 0.62, (206, 22, 26), radius=0.04)
            tile.box(u + 0.05, 0.52, u + 0.12, 0.58, (255, 120, 96), radius=0.02)
        tile.box(0.10, 0.43, 0.90, 0.445, _shade(paint, 0.6))
        tile.box(0.36, 0.60, 0.64, 0.71, (236, 236, 224))
    else:
        tile.box(0.28, 0.50, 0.72, 0.66, (38, 40, 44), radius=0.03)
        for v in (0.54, 0.60):
            tile.box(0.30, v, 0.70, v + 0.015, (120, 122, 126))
        for u in (0.04, 0.78):
            tile.box(u, 0.50, u + 0.18, 0.64, (252, 248, 222), radius=0.06)
        tile.box(0.37, 0.76, 0.63, 0.85, (236, 236, 224))
    for u in (0.0, 0.93):
        tile.box(u, 0.36, u + 0.07, 0.44, _shade(paint, 0.7), radius=0.02)
    return tile.lit(rng)


def person(rng: np.random.Generator, height: float) -> Image.Image:
    """A person standing or walking, with or without a bag."""
    tile = _Tile.blank(height, 0.56)
    skin, hair = _pick(rng, _SKIN), _pick(rng, _HAIR)
    shirt, trousers = _pick(rng, _CLOTHES), _pick(rng, _TROUSERS)
    stride = rng.uniform(0.02, 0.26)
    swing = rng.uniform(0.0, 0.22)
    broad = rng.uniform(0.13, 0.17)
    hip, shoulder, skirt = 0.53, 0.20, rng.random() < 0.2
    shoe = _shade(_pick(rng, _TROUSERS), 0.6)
    leg = skin if skirt else trousers
    elbow, wrist = (0.5 - broad - swing * 0.6, 0.37), (0.5 - broad - swing * 0.5, 0.50)
    tile.limb(((0.5 - broad - 0.03, shoulder + 0.04), elbow, wrist), 0.062, _shade(shirt, 0.72))
    tile.disc((0.5 - broad - swing * 0.5, 0.52), 0.03, skin)
    for side, tone in ((-1, 0.75), (1, 1.0)):
        foot = 0.5 + side * stride
        tile.limb(
            ((0.5 + side * 0.06, hip), (0.5 + side * stride * 0.62, 0.74), (foot, 0.94)), 0.085, _shade(leg, tone)
        )
        tile.limb(((foot - 0.02, 0.972), (foot + 0.10, 0.972)), 0.05, shoe)
    if rng.random() < 0.3:
        tile.box(0.5 - broad - 0.16, 0.22, 0.5 - 0.04, 0.46, _pick(rng, _CLOTHES), radius=0.05)
    tile.polygon(
        ((0.5 - broad, shoulder - 0.02), (0.5 + broad, shoulder - 0.02), (0.5 + broad + 0.02, 0.34),
         (0.5 + broad, 0.56), (0.5 - broad, 0.56), (0.5 - broad - 0.02, 0.34)),
        shirt, rounds=2,
    )  # fmt: skip
    if skirt:
        tile.polygon(
            ((0.5 - broad, 0.50), (0.5 + broad, 0.50), (0.5 + broad + 0.12, 0.72), (0.5 - broad - 0.12, 0.72)), trousers
        )
    tile.box(0.46, 0.13, 0.54, 0.20, _shade(skin, 0.85))
    tile.disc((0.5, 0.078), 0.078, hair, squash=0.86)
    tile.disc((0.5 + rng.uniform(0.0, 0.05), 0.094), 0.062, skin, squash=0.86)
    tile.limb(
        ((0.5 + broad, shoulder + 0.04), (0.5 + broad + swing * 0.7, 0.36), (0.5 + broad + swing, 0.48)),
        0.062,
        _shade(shirt, 0.9),
    )
    tile.disc((0.5 + broad + swing, 0.50), 0.032, skin)
    if rng.random() < 0.25:
        tile.box(0.5 + broad + swing - 0.10, 0.52, 0.5 + broad + swing + 0.12, 0.66, _pick(rng, _CLOTHES), radius=0.02)
    image = tile.lit(rng, strength=0.24)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def _regular(corners: int, radius: float, turn: float = 0.0) -> list[Point]:
    return [
        (
            0.5 + radius * math.sin(turn + 2 * math.pi * i / corners),
            0.5 - radius * math.cos(turn + 2 * math.pi * i / corners),
        )
        for i in range(corners)
    ]


def _lettering(tile: _Tile, text: str, fill: Color, size: float) -> None:
    font = ImageFont.load_default(max(size * tile.image.height, 4))
    tile.draw.text(
        tile.at((0.5, 0.5)),
        text,
        fill=fill,
        font=font,
        anchor="mm",
        stroke_width=round(tile.image.height / 40),
        stroke_fill=fill,
    )


def _sign_stop(tile: _Tile, rng: np.random.Generator) -> None:
    turn = math.pi / 8
    tile.polygon(_regular(8, 0.54, turn), (240, 240, 238))
    tile.polygon(_regular(8, 0.47, turn), (190, 22, 30))
    _lettering(tile, "STOP", (250, 250, 250), 0.30)


def _sign_limit(tile: _Tile, rng: np.random.Generator) -> None:
    tile.disc((0.5, 0.5), 0.5, (198, 24, 32))
    tile.disc((0.5, 0.5), 0.37, (246, 246, 244))
    _lettering(tile, str(rng.choice(("30", "50", "60", "80"))), (24, 24, 26), 0.42)


def _sign_no_entry(tile: _Tile, rng: np.random.Generator) -> None:
    tile.disc((0.5, 0.5), 0.5, (240, 240, 238))
    tile.disc((0.5, 0.5), 0.46, (196, 24, 32))
    tile.box(0.2, 0.41, 0.8, 0.59, (248, 248, 246))


def _sign_yield(tile: _Tile, rng: np.random.Generator) -> None:
    tile.polygon(((0.0, 0.06), (1.0, 0.06), (0.5, 0.96)), (200, 26, 34), rounds=1)
    tile.polygon(((0.2, 0.18), (0.8, 0.18), (0.5, 0.72)), (248, 248, 244), rounds=1)


def _sign_arrow(tile: _Tile, rng: np.random.Generator) -> None:
    tile.disc((0.5, 0.5), 0.5, (240, 240, 238))
    tile.disc((0.5, 0.5), 0.46, (24, 82, 172))
    tile.box(0.44, 0.34, 0.56, 0.82, (248, 248, 248))
    tile.polygon(((0.5, 0.14), (0.76, 0.44), (0.24, 0.44)), (248, 248, 248))


def _sign_warning(tile: _Tile, rng: np.random.Generator) -> None:
    tile.polygon(_regular(4, 0.5), (30, 30, 28), rounds=1)
    tile.polygon(_regular(4, 0.45), (248, 200, 32), rounds=1)
    tile.box(0.46, 0.28, 0.54, 0.58, (28, 28, 26))
    tile.disc((0.5, 0.68), 0.05, (28, 28, 26))


_SIGNS: tuple[Callable[[_Tile, np.random.Generator], None], ...] = (
    _sign_stop, _sign_limit, _sign_no_entry, _sign_yield, _sign_arrow, _sign_warning,
)  # fmt: skip


def road_sign(rng: np.random.Generator, height: float) -> Image.Image:
    """The plate of a road sign, without its pole."""
    tile = _Tile.blank(height, 1.0)
    _SIGNS[int(rng.integers(len(_SIGNS)))](tile, rng)
    return tile.lit(rng, strength=0.14)


# Clutter: what a detector must learn to leave alone.


def _foliage(tile: _Tile, rng: np.random.Generator, center: Point, spread: Point, leaves: Color, size: float) -> None:
    """Heap discs of leaves, dark ones first, so that the crown looks lit from above."""
    count = 46
    for step in range(count):
        tone = 0.55 + 0.6 * step / count
        angle, distance = rng.uniform(0, 2 * math.pi), math.sqrt(rng.uniform(0, 1))
        u = center[0] + spread[0] * distance * math.cos(angle)
        v = center[1] + spread[1] * distance * math.sin(angle) - 0.06 * step / count
        tile.disc((u, v), size * rng.uniform(0.7, 1.2) * (1.15 - 0.5 * step / count), _shade(leaves, min(tone, 1.12)))


def tree(rng: np.random.Generator, height: float) -> Image.Image:
    tile = _Tile.blank(height, 0.72)
    bark: Color = (96, 70, 48)
    tile.polygon(((0.46, 0.5), (0.54, 0.5), (0.57, 1.0), (0.43, 1.0)), bark)
    leaves = _pick(rng, ((62, 118, 56), (84, 134, 52), (46, 98, 64), (158, 120, 46)))
    if rng.random() < 0.3:
        for step in range(4):
            top, half = 0.02 + 0.18 * step, 0.2 + 0.07 * step
            tone = _shade(leaves, 0.62 + 0.08 * step)
            tile.polygon(((0.5, top), (0.5 + half, top + 0.3), (0.5 - half, top + 0.3)), tone)
    else:
        _foliage(tile, rng, (0.5, 0.36), (0.34, 0.22), leaves, 0.12)
    return tile.lit(rng)


def bush(rng: np.random.Generator, height: float) -> Image.Image:
    tile = _Tile.blank(height, rng.uniform(1.4, 2.4))
    leaves = _pick(rng, ((66, 112, 58), (86, 126, 56), (58, 92, 54)))
    _foliage(tile, rng, (0.5, 0.62), (0.40, 0.30), leaves, 0.26)
    return tile.lit(rng)


def lamp_post(rng: np.random.Generator, height: float) -> Image.Image:
    tile = _Tile.blank(height, 0.34)
    metal = _pick(rng, ((72, 76, 80), (50, 58, 54), (110, 112, 114)))
    tile.limb(((0.2, 0.995), (0.2, 0.06)), 0.018, metal)
    tile.limb(((0.2, 0.06), (0.5, 0.02), (0.86, 0.03)), 0.014, metal)
    tile.box(0.70, 0.02, 1.0, 0.045, _shade(metal, 0.7))
    tile.box(0.12, 0.93, 0.28, 1.0, _shade(metal, 0.8))
    return tile.lit(rng, strength=0.1)


def bin_(rng: np.random.Generator, height: float) -> Image.Image:
    """A litter bin, the size of a person's lower half and about as dark."""
    tile = _Tile.blank(height, rng.uniform(0.55, 0.75))
    color = _pick(rng, ((56, 84, 62), (70, 72, 78), (44, 66, 104), (120, 92, 52)))
    tile.polygon(((0.06, 0.16), (0.94, 0.16), (0.84, 1.0), (0.16, 1.0)), color, rounds=1)
    tile.box(0.0, 0.0, 1.0, 0.16, _shade(color, 0.7), radius=0.05)
    for u in (0.3, 0.5, 0.7):
        tile.box(u - 0.02, 0.26, u + 0.02, 0.92, _shade(color, 0.72))
    return tile.lit(rng)


def hydrant(rng: np.random.Generator, height: float) -> Image.Image:
    tile = _Tile.blank(height, 0.62)
    color = _pick(rng, ((192, 40, 36), (222, 180, 50)))
    tile.disc((0.5, 0.2), 0.19, _shade(color, 0.9))
    tile.box(0.26, 0.2, 0.74, 0.9, color)
    tile.box(0.0, 0.38, 1.0, 0.56, _shade(color, 0.85), radius=0.06)
    tile.box(0.14, 0.88, 0.86, 1.0, _shade(color, 0.7))
    return tile.lit(rng)


def cone(rng: np.random.Generator, height: float) -> Image.Image:
    tile = _Tile.blank(height, 0.74)
    tile.polygon(((0.44, 0.0), (0.56, 0.0), (0.84, 0.92), (0.16, 0.92)), (236, 104, 30))
    tile.polygon(((0.36, 0.30), (0.64, 0.30), (0.70, 0.50), (0.30, 0.50)), (244, 242, 238))
    tile.box(0.0, 0.90, 1.0, 1.0, (210, 86, 24))
    return tile.lit(rng)


def bench(rng: np.random.Generator, height: float) -> Image.Image:
    tile = _Tile.blank(height, 2.2)
    wood: Color = _pick(rng, ((134, 94, 58), (110, 84, 62)))
    for v in (0.02, 0.18, 0.34):
        tile.box(0.02, v, 0.98, v + 0.11, wood)
    tile.box(0.0, 0.54, 1.0, 0.64, _shade(wood, 0.85))
    for u in (0.08, 0.86):
        tile.box(u, 0.40, u + 0.05, 1.0, (52, 54, 56))
    return tile.lit(rng)
