"""The world behind the objects: sky, hills, buildings, road, and the camera that looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["Camera", "Light", "Street", "draw_backdrop", "random_camera", "random_light", "random_street"]

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """The hour and weather of a scene; colours are 8-bit RGB."""

    name: str
    zenith: Color
    horizon: Color
    tint: tuple[float, float, float]  # multiplies the finished picture
    haze: float  # share of the horizon's colour mixed into the farthest objects
    shadow: float  # how dark the shadows are, 0 to 1
    lit_windows: float  # share of windows with light in them


_LIGHTS: tuple[Light, ...] = (
    Light(name="noon", zenith=(74, 138, 214), horizon=(206, 226, 242), tint=(1.02, 1.0, 0.98), haze=0.25,
          shadow=0.55, lit_windows=0.0),
    Light(name="morning", zenith=(110, 160, 216), horizon=(250, 226, 198), tint=(1.05, 1.0, 0.93), haze=0.35,
          shadow=0.45, lit_windows=0.04),
    Light(name="overcast", zenith=(158, 168, 180), horizon=(214, 218, 222), tint=(0.94, 0.96, 0.98), haze=0.45,
          shadow=0.25, lit_windows=0.06),
    Light(name="sunset", zenith=(84, 90, 156), horizon=(250, 170, 110), tint=(1.02, 0.88, 0.80), haze=0.35,
          shadow=0.40, lit_windows=0.20),
    Light(name="dusk", zenith=(28, 40, 84), horizon=(150, 128, 160), tint=(0.62, 0.64, 0.80), haze=0.30,
          shadow=0.30, lit_windows=0.50),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A level pinhole camera over a flat ground; pixels are those of the canvas."""

    width: int
    height: int
    horizon_y: float
    vanishing_x: float
    eye_m: float  # height of the camera over the ground
    along: bool  # looks along the road; otherwise across it

    def ground_y(self, scale: float) -> float:
        """Row of the ground where one metre is `scale` · picture height pixels."""
        return self.horizon_y + scale * self.height * self.eye_m

    def ground_x(self, lateral_m: float, scale: float) -> float:
        return self.vanishing_x + lateral_m * scale * self.height

    def point(self, lateral_m: float, up_m: float, scale: float) -> tuple[float, float]:
        return (self.ground_x(lateral_m, scale), self.ground_y(scale) - up_m * scale * self.height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Street:
    """Where a street seen from across it has its houses and kerbs, as ground scales (far to near)."""

    facade: float
    far_kerb: float
    near_kerb: float


def random_street(rng: np.random.Generator) -> Street:
    far = float(rng.uniform(0.074, 0.086))
    return Street(facade=far * float(rng.uniform(0.74, 0.84)), far_kerb=far, near_kerb=float(rng.uniform(0.122, 0.140)))


def random_light(rng: np.random.Generator) -> Light:
    return _LIGHTS[int(rng.choice(len(_LIGHTS), p=(0.28, 0.22, 0.22, 0.16, 0.12)))]


def random_camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    along = bool(rng.random() < 0.55)
    return Camera(
        width=width,
        height=height,
        horizon_y=height * rng.uniform(0.28, 0.38),
        vanishing_x=width * (rng.uniform(0.36, 0.64) if along else 0.5),
        eye_m=rng.uniform(2.7, 3.4),
        along=along,
    )


def _mixed(a: Color, b: Color, share: float) -> Color:
    return (
        int(a[0] + (b[0] - a[0]) * share),
        int(a[1] + (b[1] - a[1]) * share),
        int(a[2] + (b[2] - a[2]) * share),
    )


def _sky(rng: np.random.Generator, camera: Camera, light: Light) -> Image.Image:
    rows = np.clip(np.arange(camera.height) / max(camera.horizon_y, 1), 0, 1)[:, None]
    column = np.asarray(light.zenith) * (1 - rows) + np.asarray(light.horizon) * rows
    picture = np.repeat(column[:, None, :], camera.width, axis=1).astype(np.uint8)
    image = Image.fromarray(picture, "RGB")
    # Clouds are drawn small and blurred, then enlarged: soft and cheap.
    small = Image.new("L", (camera.width // 4, camera.height // 4))
    pen = ImageDraw.Draw(small)
    for _ in range(int(rng.integers(2, 7))):
        x, y = rng.uniform(0, small.width), rng.uniform(0, camera.horizon_y / 4 * 0.8)
        for _ in range(int(rng.integers(4, 9))):
            w, h = small.height * rng.uniform(0.05, 0.16), small.height * rng.uniform(0.02, 0.045)
            dx, dy = rng.normal(0, small.height * 0.10), rng.normal(0, small.height * 0.015)
            pen.ellipse((x + dx - w, y + dy - h, x + dx + w, y + dy + h), fill=int(rng.integers(90, 200)))
    mask = small.filter(ImageFilter.GaussianBlur(small.height / 70)).resize(image.size, Image.Resampling.BICUBIC)
    image.paste(_mixed(light.horizon, (255, 255, 255), 0.5), (0, 0), mask)
    return image


def _hills(rng: np.random.Generator, pen: ImageDraw.ImageDraw, camera: Camera, light: Light) -> None:
    for layer in range(3):
        phase, waves = rng.uniform(0, 6.3, 2), rng.uniform(1.0, 3.5, 2)
        amount = camera.height * rng.uniform(0.02, 0.06)
        base = camera.horizon_y - camera.height * (0.05 - 0.02 * layer)
        xs = np.linspace(0, camera.width, 60)
        ys = base - amount * (np.sin(xs / camera.width * 6.3 * waves[0] + phase[0]) * 0.6
                              + np.sin(xs / camera.width * 6.3 * waves[1] * 2 + phase[1]) * 0.4)  # fmt: skip
        color = _mixed((74, 104, 78), light.horizon, 0.65 - 0.2 * layer)
        outline = [*zip(xs.tolist(), ys.tolist(), strict=True)]
        pen.polygon([*outline, (camera.width, camera.height), (0, camera.height)], fill=color)


_WALLS: tuple[Color, ...] = (
    (188, 170, 148), (158, 92, 74), (206, 200, 190), (128, 134, 140), (198, 172, 120), (120, 106, 100),
    (170, 182, 186), (146, 120, 96),
)  # fmt: skip


def _window_color(rng: np.random.Generator, light: Light) -> Color:
    if rng.random() < light.lit_windows:
        return (255, 224, 150)
    return (int(rng.integers(52, 96)), int(rng.integers(72, 112)), int(rng.integers(92, 136)))


def _facade(
    rng: np.random.Generator,
    pen: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    wall: Color,
    light: Light,
    metre: float,
) -> None:
    """A house front with storeys of windows; `metre` is a metre in pixels."""
    x0, y0, x1, y1 = box
    pen.rectangle(box, fill=wall)
    pen.rectangle((x0, y0, x1, y0 + 0.3 * metre), fill=_mixed(wall, (0, 0, 0), 0.3))
    storey, bay = 3.1 * metre, rng.uniform(2.2, 3.4) * metre
    if bay < 4 or x1 - x0 < bay:
        return
    bays = int((x1 - x0) // bay)
    margin = (x1 - x0 - bays * bay) / 2
    trim = _mixed(wall, (255, 255, 255), 0.35)
    shop = rng.random() < 0.5
    y = y1 - (3.6 if shop else 3.1) * metre
    if shop:
        awning: Color = ((168, 52, 48), (48, 96, 84), (60, 72, 120), (190, 140, 60))[int(rng.integers(4))]
        pen.rectangle((x0 + margin, y + 0.9 * metre, x1 - margin, y1 - 0.4 * metre), fill=_window_color(rng, light))
        pen.rectangle((x0 + margin * 0.6, y + 0.4 * metre, x1 - margin * 0.6, y + 1.1 * metre), fill=awning)
    else:
        y += storey
    while y - storey > y0:
        y -= storey
        for i in range(bays):
            left = x0 + margin + i * bay + bay * 0.26
            pane = (left, y + storey * 0.25, left + bay * 0.48, y + storey * 0.80)
            pen.rectangle((pane[0] - 1, pane[1] - 1, pane[2] + 1, pane[3] + metre * 0.12), fill=trim)
            pen.rectangle(pane, fill=_window_color(rng, light))


def _houses_across(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, camera: Camera, light: Light, scale: float
) -> None:
    base, metre = camera.ground_y(scale), scale * camera.height
    x = -rng.uniform(0, 4) * metre
    while x < camera.width:
        wide, tall = rng.uniform(7, 14) * metre, rng.uniform(6, 15) * metre
        if rng.random() < 0.85:
            wall = _mixed(_WALLS[int(rng.integers(len(_WALLS)))], light.horizon, light.haze * 0.5)
            _facade(rng, pen, (x, base - tall, x + wide, base), wall, light, metre)
        x += wide


def _houses_along(rng: np.random.Generator, pen: ImageDraw.ImageDraw, camera: Camera, light: Light) -> None:
    """Rows of houses on both sides, far ones first; each shows its wall to the road and its front to us."""
    edges = np.geomspace(0.006, 0.115, 8)
    for far, near in pairwise(edges.tolist()):
        for side in (-1, 1):
            if rng.random() < 0.12:
                continue
            setback, tall, wide = rng.uniform(9.5, 13.0), rng.uniform(6, 15), rng.uniform(8, 14)
            near_end = far + (near - far) * 0.86
            wall = _WALLS[int(rng.integers(len(_WALLS)))]
            wall = _mixed(wall, light.horizon, light.haze * (1 - near / 0.12))
            dark = _mixed(wall, (0, 0, 0), 0.22)
            lateral = side * setback
            pen.polygon(
                [camera.point(lateral, 0, far), camera.point(lateral, tall, far),
                 camera.point(lateral, tall, near_end), camera.point(lateral, 0, near_end)],
                fill=dark,
            )  # fmt: skip
            for storey in range(int(tall // 3.1)):
                for a, b in ((0.12, 0.3), (0.42, 0.6), (0.72, 0.9)):
                    k0, k1 = far + (near_end - far) * a, far + (near_end - far) * b
                    pen.polygon(
                        [camera.point(lateral, storey * 3.1 + 1.0, k0), camera.point(lateral, storey * 3.1 + 2.4, k0),
                         camera.point(lateral, storey * 3.1 + 2.4, k1), camera.point(lateral, storey * 3.1 + 1.0, k1)],
                        fill=_window_color(rng, light),
                    )  # fmt: skip
            inner, outer = camera.point(lateral, tall, near_end), camera.point(side * (setback + wide), 0, near_end)
            box = (min(inner[0], outer[0]), inner[1], max(inner[0], outer[0]), outer[1])
            _facade(rng, pen, box, wall, light, near_end * camera.height)


def _band(
    pen: ImageDraw.ImageDraw, camera: Camera, x0_m: float, x1_m: float, k0: float, k1: float, fill: Color
) -> None:
    """Fill the ground between two lateral positions and two depths."""
    pen.polygon(
        [camera.point(x0_m, 0, k0), camera.point(x1_m, 0, k0), camera.point(x1_m, 0, k1), camera.point(x0_m, 0, k1)],
        fill=fill,
    )


def _road_along(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, camera: Camera, asphalt: Color, paving: Color
) -> None:
    near = 0.36
    _band(pen, camera, -9.2, 9.2, 0.0, near, paving)
    _band(pen, camera, -5.9, 5.9, 0.0, near, _mixed(paving, (255, 255, 255), 0.35))
    _band(pen, camera, -5.7, 5.7, 0.0, near, asphalt)
    paint: Color = (226, 224, 214)
    for side in (-1, 1):
        _band(pen, camera, side * 3.55, side * 3.68, 0.0, near, paint)
    start = float(rng.uniform(2, 8))
    for metres in np.arange(start, 140, 8):  # dashes of 4 m every 8 m; depth in metres is 1 / scale, up to a constant
        _band(pen, camera, -0.08, 0.08, 1.1 / (metres + 4), 1.1 / metres, paint)
    if rng.random() < 0.35:
        k0 = float(rng.uniform(0.10, 0.16))
        for lateral in np.arange(-5.2, 5.2, 1.1):
            _band(pen, camera, lateral, lateral + 0.6, k0, k0 * 1.22, paint)


def _road_across(
    rng: np.random.Generator,
    pen: ImageDraw.ImageDraw,
    camera: Camera,
    asphalt: Color,
    paving: Color,
    street: Street,
) -> None:
    width = camera.width

    def rows(k0: float, k1: float, fill: Color) -> None:
        pen.rectangle((0, camera.ground_y(k0), width, camera.ground_y(k1)), fill=fill)

    far, near = street.far_kerb, street.near_kerb
    rows(street.facade, 0.4, paving)
    rows(far * 0.975, far, _mixed(paving, (255, 255, 255), 0.4))
    rows(far, near, asphalt)
    rows(near, near * 1.03, _mixed(paving, (255, 255, 255), 0.4))
    middle = 2 / (1 / far + 1 / near)
    for lateral in np.arange(-60, 60, 6.0):
        _band(pen, camera, lateral, lateral + 3, middle * 0.992, middle * 1.008, (226, 224, 214))
    if rng.random() < 0.4:
        left = float(rng.uniform(-6, 5))
        for k in np.linspace(far * 1.03, near * 0.97, 7)[:-1]:
            _band(pen, camera, left, left + 3.0, k, k * 1.06, (222, 220, 210))
    joint = _mixed(paving, (0, 0, 0), 0.12)
    for lateral in np.arange(-24, 24, 1.6):
        for k0, k1 in ((street.facade, far * 0.975), (near * 1.03, 0.4)):
            pen.line(
                [camera.point(lateral, 0, k0), camera.point(lateral, 0, k1)],
                fill=joint,
                width=max(camera.height // 560, 1),
            )


def draw_backdrop(rng: np.random.Generator, camera: Camera, light: Light, street: Street) -> Image.Image:
    """Draw the empty scene; `street` matters to a camera that looks across it."""
    image = _sky(rng, camera, light)
    pen = ImageDraw.Draw(image)
    _hills(rng, pen, camera, light)
    grass: Color = ((104, 128, 76), (126, 132, 84), (88, 116, 80))[int(rng.integers(3))]
    pen.rectangle((0, camera.horizon_y, camera.width, camera.height), fill=grass)
    grey = int(rng.integers(78, 112))
    asphalt: Color = (grey, grey + 2, grey + 6)
    paving: Color = ((172, 166, 156), (156, 156, 158), (184, 170, 148))[int(rng.integers(3))]
    if camera.along:
        if rng.random() < 0.7:
            _houses_along(rng, pen, camera, light)
        _road_along(rng, pen, camera, asphalt, paving)
    else:
        if rng.random() < 0.75:
            _houses_across(rng, pen, camera, light, street.facade)
        _road_across(rng, pen, camera, asphalt, paving, street)
    return image
