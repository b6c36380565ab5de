"""Street scenes with cars, people and road signs, drawn from a seed, with the boxes of what is in them.

A scene is laid out in metres on a flat ground and then drawn at any size, so the same seed gives the same
street at training size and at picture size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from backdrop import Camera, Light, Street, draw_backdrop, random_camera, random_light, random_street
from PIL import Image, ImageDraw, ImageFilter
from sprites import bench, bin_, bush, car_end, car_side, cone, hydrant, lamp_post, person, road_sign, tree

__all__ = ["CLASSES", "LabeledBox", "Scene", "draw_scene"]

CLASSES = ("car", "person", "road_sign")

# Scales are metres in units of the picture's height. Below the smallest an object would be under 16 pixels
# at network size; above the largest a car seen from the side would outgrow the network's receptive field.
_FARTHEST, _NEAREST, _NEAREST_SIDE_CAR = 0.052, 0.20, 0.135
_MIN_SIGN_SCALE = 0.068


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledBox:
    """One object; the box is in pixels of the picture, clipped to it, and `truncation` is the share cut off."""

    label: str
    left: float
    top: float
    right: float
    bottom: float
    truncation: float = 0.0
    occlusion: int = 0  # KITTI's: 0 fully visible, 1 partly covered

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        return (self.left, self.top, self.right, self.bottom)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    image: Image.Image
    boxes: tuple[LabeledBox, ...]
    light: str
    seed: int


@dataclass(frozen=True, slots=True)
class _Placed:
    """A sprite and where it stands; `label` is empty for clutter."""

    label: str
    scale: float
    sprite: Image.Image
    left: int
    top: int
    pole_to: float | None = None  # row of the ground under a sign

    @property
    def box(self) -> tuple[int, int, int, int]:
        return (self.left, self.top, self.left + self.sprite.width, self.top + self.sprite.height)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area of the intersection over the smaller of the two areas."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


class _Layout:
    """Collects objects for one scene and refuses those that would hide each other too much."""

    def __init__(self, rng: np.random.Generator, camera: Camera) -> None:
        self.rng, self.camera = rng, camera
        self.placed: list[_Placed] = []

    def put(
        self,
        label: str,
        draw: Callable[[float], Image.Image],
        *,
        height_m: float,
        lateral_m: float,
        scale: float,
        up_m: float = 0.0,
    ) -> bool:
        """Place one sprite with its foot (or, for a sign, its lower edge) `up_m` over the ground."""
        camera, tall = self.camera, height_m * scale * self.camera.height
        sprite = draw(tall)
        x, ground = camera.point(lateral_m, 0, scale)
        bottom = ground - up_m * scale * camera.height
        item = _Placed(
            label, scale, sprite, round(x - sprite.width / 2), round(bottom - sprite.height), ground if up_m else None
        )
        if label and not self._fits(item):
            return False
        if not label and any(_overlap(item.box, other.box) > 0.1 for other in self.placed if other.label):
            return False
        self.placed.append(item)
        return True

    def _fits(self, item: _Placed) -> bool:
        camera = self.camera
        x0, y0, x1, y1 = item.box
        inside = max(min(x1, camera.width) - max(x0, 0), 0) / max(x1 - x0, 1)
        if inside < 0.75 or y0 < 0 or y1 > camera.height:
            return False
        for other in self.placed:
            if not other.label:
                continue
            if _overlap(item.box, other.box) > (0.12 if other.label == item.label else 0.30):
                return False
            # Two centres of one class within a grid cell of each other could not be told apart.
            dx = (x0 + x1 - other.box[0] - other.box[2]) / 2
            dy = (y0 + y1 - other.box[1] - other.box[3]) / 2
            if other.label == item.label and max(abs(dx), abs(dy)) < 0.13 * camera.height:
                return False
        return True


def _add_targets(layout: _Layout, street: Street) -> None:
    rng, camera = layout.rng, layout.camera
    half = camera.width / camera.height / 2

    def any_lateral(scale: float) -> float:
        return float(rng.uniform(-half * 0.97, half * 0.97) - (camera.vanishing_x / camera.height - half)) / scale

    def lane_car() -> bool:
        scale = float(np.exp(rng.uniform(np.log(_FARTHEST), np.log(_NEAREST * 0.85))))
        lane = float(rng.choice((-4.6, -1.8, 1.8, 4.6), p=(0.2, 0.3, 0.3, 0.2)))
        rear = lane > 0 if rng.random() < 0.85 else lane < 0
        return layout.put("car", lambda h: car_end(rng, h, rear=rear), height_m=float(rng.uniform(1.4, 1.65)),
                          lateral_m=lane + float(rng.normal(0, 0.2)), scale=scale)  # fmt: skip

    def crossing_car() -> bool:
        low, high = (
            (0.06, 0.115) if camera.along else (street.far_kerb * 1.04, min(street.near_kerb * 0.98, _NEAREST_SIDE_CAR))
        )
        scale = float(rng.uniform(low, high))
        return layout.put("car", lambda h: car_side(rng, h), height_m=float(rng.uniform(1.4, 1.6)),
                          lateral_m=any_lateral(scale), scale=scale)  # fmt: skip

    def walker() -> bool:
        if camera.along:
            scale = float(np.exp(rng.uniform(np.log(0.062), np.log(_NEAREST))))
            side = float(rng.choice((-1, 1)))
            lateral = side * float(rng.uniform(6.3, 8.8)) if rng.random() < 0.75 else float(rng.uniform(-5, 5))
            if abs(lateral * scale) > half:
                lateral = any_lateral(scale)
        else:
            where = rng.random()
            if where < 0.4:
                scale = float(rng.uniform(max(0.062, street.facade * 1.04), street.far_kerb))
            elif where < 0.8:
                scale = float(rng.uniform(street.near_kerb * 1.04, _NEAREST))
            else:
                scale = float(rng.uniform(street.far_kerb, street.near_kerb))
            lateral = any_lateral(scale)
        return layout.put("person", lambda h: person(rng, h), height_m=float(rng.uniform(1.5, 1.9)),
                          lateral_m=lateral, scale=scale)  # fmt: skip

    def sign() -> bool:
        if camera.along:
            scale = float(np.exp(rng.uniform(np.log(_MIN_SIGN_SCALE), np.log(0.16))))
            lateral = float(rng.choice((-1, 1))) * float(rng.uniform(5.9, 6.6))
            if abs(lateral * scale) > half * 0.95:
                return False
        else:
            scale = float(rng.choice((street.far_kerb * 0.97, street.near_kerb * 1.05)))
            scale = max(scale, _MIN_SIGN_SCALE)
            lateral = any_lateral(scale)
        return layout.put("road_sign", lambda h: road_sign(rng, h), height_m=float(rng.uniform(0.78, 0.95)),
                          lateral_m=lateral, scale=scale, up_m=float(rng.uniform(1.7, 2.2)))  # fmt: skip

    car = (lambda: lane_car() if rng.random() < 0.8 else crossing_car()) if camera.along else crossing_car
    for add, low, high in ((car, 1, 5), (walker, 1, 6), (sign, 0, 3)):
        wanted, tries = int(rng.integers(low, high + 1)), 0
        while wanted and tries < 30:
            wanted -= add()
            tries += 1


def _add_clutter(layout: _Layout, street: Street) -> None:
    rng, camera = layout.rng, layout.camera
    half = camera.width / camera.height / 2
    kinds: tuple[tuple[Callable[[np.random.Generator, float], Image.Image], float, float, float], ...] = (
        (tree, 4.5, 8.0, 0.24), (bush, 0.8, 1.3, 0.2), (lamp_post, 5.0, 7.0, 0.16), (bin_, 0.85, 1.1, 0.14),
        (hydrant, 0.7, 0.9, 0.08), (cone, 0.6, 0.8, 0.08), (bench, 0.8, 0.95, 0.10),
    )  # fmt: skip
    for _ in range(int(rng.integers(4, 13))):
        draw, low, high, _share = kinds[int(rng.choice(len(kinds), p=[k[3] for k in kinds]))]
        if camera.along:
            scale = float(np.exp(rng.uniform(np.log(0.03), np.log(0.15))))
            lateral = float(rng.choice((-1, 1))) * float(rng.uniform(6.3, 14.0))
        else:
            scale = float(
                rng.choice(
                    (
                        rng.uniform(street.facade * 1.03, street.far_kerb * 0.96),
                        rng.uniform(street.near_kerb * 1.05, 0.19),
                    )
                )
            )
            lateral = float(rng.uniform(-half, half)) / scale
            if draw in (tree, lamp_post):
                scale = min(scale, street.far_kerb * 0.96)
        layout.put("", lambda h, draw=draw: draw(rng, h), height_m=float(rng.uniform(low, high)), lateral_m=lateral,
                   scale=scale)  # type: ignore[misc]  # fmt: skip


def _shadows(image: Image.Image, placed: list[_Placed], camera: Camera, light: Light) -> None:
    """Darken the ground under everything, softly, in one go."""
    mask = Image.new("L", (image.width // 2, image.height // 2))
    pen = ImageDraw.Draw(mask)
    for item in placed:
        x0, _, x1, y1 = item.box
        if item.pole_to is not None:
            x0, x1, y1 = (x0 + x1) // 2 - 3, (x0 + x1) // 2 + 3, round(item.pole_to)
        depth = 0.16 * item.scale * camera.height
        grow = (x1 - x0) * 0.06
        pen.ellipse(
            ((x0 - grow) / 2, (y1 - depth * 1.1) / 2, (x1 + grow * 3) / 2, (y1 + depth) / 2),
            fill=int(255 * light.shadow),
        )
    mask = mask.filter(ImageFilter.GaussianBlur(mask.height / 160)).resize(image.size, Image.Resampling.BILINEAR)
    image.paste((18, 20, 28), (0, 0), mask)


def _hazed(sprite: Image.Image, share: float, color: tuple[int, int, int]) -> Image.Image:
    if share < 0.02:
        return sprite
    veil = Image.new("RGBA", sprite.size, (*color, 255))
    veil.putalpha(sprite.getchannel("A"))
    return Image.blend(sprite, veil, share)


def _paint(image: Image.Image, layout: _Layout, light: Light) -> None:
    camera, pen = layout.camera, ImageDraw.Draw(image)
    placed = sorted(layout.placed, key=lambda item: item.scale)
    _shadows(image, placed, camera, light)
    for item in placed:
        share = light.haze * 0.7 * max(0.0, 1 - item.scale / 0.15)
        if item.pole_to is not None:
            x = (item.box[0] + item.box[2]) / 2
            half = max(0.035 * item.scale * camera.height, 0.6)
            pen.rectangle((x - half, item.box[1] + 3, x + half, item.pole_to), fill=(112, 116, 120))
        sprite = _hazed(item.sprite, share, light.horizon)
        image.paste(sprite, (item.left, item.top), sprite)


def _developed(image: Image.Image, rng: np.random.Generator, light: Light) -> Image.Image:
    """What a camera adds: exposure, colour cast, vignette and sensor noise."""
    array = np.asarray(image).astype(np.float32)
    height, width = array.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    vignette = 1 - 0.12 * (x * x + y * y)
    cast = np.asarray(light.tint, dtype=np.float32) * np.float32(rng.uniform(0.9, 1.08))
    array = array * vignette[..., None] * cast
    noise = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(rng.uniform(1.5, 5.0))
    return Image.fromarray(np.clip(array + noise, 0, 255).astype(np.uint8), "RGB")


def _labels(layout: _Layout, supersample: int) -> tuple[LabeledBox, ...]:
    camera = layout.camera
    boxes: list[LabeledBox] = []
    targets = [item for item in layout.placed if item.label]
    for item in targets:
        x0, y0, x1, y1 = item.box
        left, right = max(x0, 0), min(x1, camera.width)
        nearer = [o for o in targets if o.scale > item.scale]
        boxes.append(
            LabeledBox(
                label=item.label,
                left=left / supersample,
                top=max(y0, 0) / supersample,
                right=right / supersample,
                bottom=min(y1, camera.height) / supersample,
                truncation=round(1 - (right - left) / (x1 - x0), 2),
                occlusion=int(any(_overlap(item.box, o.box) > 0.05 for o in nearer)),
            )
        )
    return tuple(boxes)


def draw_scene(seed: int, *, width: int, height: int, supersample: int = 1) -> Scene:
    """Draw the scene of `seed`; the same arguments always give the same pixels and labels.

    With `supersample` n it is drawn n times larger and reduced, which smooths the edges.
    """
    rng = np.random.default_rng(seed)
    light = random_light(rng)
    camera = random_camera(rng, width * supersample, height * supersample)
    street = random_street(rng)
    image = draw_backdrop(rng, camera, light, street)
    layout = _Layout(rng, camera)
    _add_targets(layout, street)
    _add_clutter(layout, street)
    _paint(image, layout, light)
    if supersample > 1:
        image = image.resize((width, height), Image.Resampling.BOX)
    return Scene(image=_developed(image, rng, light), boxes=_labels(layout, supersample), light=light.name, seed=seed)
