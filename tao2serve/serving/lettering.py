"""Fonts for labels on pictures, and what can be written of a class name with the fonts that are here."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from PIL import ImageFont

__all__ = ["Lettering", "lettering_for"]

# Pillow's own font holds ASCII and is always there. These hold more, and are looked for by name.
_SYSTEM_FONTS: Final = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "unifont.ttf",
)
_NO_CHARACTER: Final = "\uffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lettering:
    """A label's words in a font that can show all of them."""

    text: str
    font: Any  # ImageFont.FreeTypeFont, or ImageFont.ImageFont where Pillow has no FreeType

    def size_of(self, text: str) -> tuple[float, float]:
        """Return the width of the text, and the height of a line of any text."""
        left, _, right, _ = self.font.getbbox(text)
        return right - left, self.line[1] - self.line[0]

    @property
    def line(self) -> tuple[float, float]:
        """Top and bottom of a line, with its tallest and deepest letters."""
        _, top, _, bottom = self.font.getbbox("Ágjlp")
        return top, bottom


def lettering_for(label: str, *, class_id: int, size: int) -> Lettering:
    """Return the label as it can be shown: itself, else without accents, else the number of its class.

    A name beyond ASCII needs a system font that holds all of its characters; `DejaVuSans` and Noto's are looked
    for among others. Control characters, and what has no width, are left out.
    """
    name = " ".join("".join(one for one in label if unicodedata.category(one)[0] != "C" or one == " ").split())
    plain = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    default = _default_font(size)
    for text in (name, plain):
        if text.isascii() and text:
            return Lettering(text=text, font=default)
        if text == name and text and (font := _font_for(text, size)) is not None:
            return Lettering(text=text, font=font)
    return Lettering(text=f"class {class_id}", font=default)


@cache
def _default_font(size: int) -> Any:
    return ImageFont.load_default(size=size)


@cache
def _font_for(text: str, size: int) -> Any:
    """Return a system font at that size that shows every character of the text, or None."""
    for name in _SYSTEM_FONTS:
        font = _system_font(name, size)
        if font is not None and _shows(font, text):
            return font
    return None


@cache
def _system_font(name: str, size: int) -> Any:
    try:
        return ImageFont.truetype(name, size)
    except (OSError, ImportError):
        return None


def _shows(font: Any, text: str) -> bool:
    """Say whether no character is drawn as the box that stands for a missing one."""
    missing = bytes(font.getmask(_NO_CHARACTER))
    return all(one == " " or bytes(font.getmask(one)) != missing for one in set(text))
