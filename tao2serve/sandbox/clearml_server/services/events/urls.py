"""The files that events point to, for clients to delete with the task or model that reported them."""

from __future__ import annotations

import re

from ...store import Tx

_SOURCE = re.compile(r"""["']source["']\s*:\s*["']([a-z][a-z0-9+.\-]*://[^"']+)["']""")


def file_urls(tx: Tx, owner: str) -> list[str]:
    """Return the URLs of debug images, and of pictures inside plots, each once."""
    images = {event["url"] for event in tx.events(owner, "training_debug_image") if event.get("url")}
    plots = (str(event.get("plot_str") or "") for event in tx.events(owner, "plot"))
    return sorted(images.union(*(_SOURCE.findall(plot) for plot in plots)))
