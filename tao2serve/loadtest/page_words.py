"""How the pages of a report write numbers and sentences."""

from __future__ import annotations

__all__ = ["number", "percent", "sentence"]


def number(value: float) -> str:
    """Three significant digits below a thousand, whole numbers above."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(ratio: float) -> str:
    """Return a change in %, with its sign."""
    return f"{100 * ratio:+,.1f} %"


def sentence(text: str) -> str:
    """Return a note as a sentence, "" of nothing."""
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
