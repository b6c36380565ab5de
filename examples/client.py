"""Ask an endpoint about pictures, with `requests` alone.

    python examples/client.py http://HOST:8080/serve/street street.jpg more.png

Behind the proxy that `tao2serve render` writes, set KEY to a key of it. Exits 1 if a picture was not answered.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import requests

# Of what a server may answer for a while, it is worth to ask again for these: a version is being loaded or replaced,
# there were too many requests. 422 says that the picture is none, which another try does not change.
AGAIN = (429, 503, 504)
TRIES = 3


def ask(session: requests.Session, url: str, picture: Path) -> dict[str, Any]:
    """Return the endpoint's document for one picture; boxes are in pixels of the upright picture."""
    for left in reversed(range(TRIES)):
        response = session.post(url, data=picture.read_bytes(), headers={"Content-Type": "image/jpeg"}, timeout=30)
        if response.status_code not in AGAIN or not left:
            break
    if response.status_code != requests.codes.ok:
        raise SystemExit(f"{picture}: {response.status_code} {response.text}")
    document: dict[str, Any] = response.json()
    return document


def main(url: str, *pictures: str) -> None:
    with requests.Session() as session:  # one connection for all of them
        if "KEY" in os.environ:
            session.headers["Authorization"] = f"Bearer {os.environ['KEY']}"
        for picture in map(Path, pictures):
            document = ask(session, url, picture)
            print(f"{picture}: {len(document['predictions'])} objects, version {document['model']['version']}")
            for found in document["predictions"]:
                left, top, right, bottom = found["bbox"]
                print(f"  {found['label']:12} {found['score']:.2f}  {left:.0f},{top:.0f} to {right:.0f},{bottom:.0f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
