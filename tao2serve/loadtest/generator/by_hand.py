"""An ordinary locustfile, with locust's own web page: `--images` and `--endpoint` say what to post where."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tao2serve.errors import InputError
from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.generator.load import Load
from tao2serve.loadtest.plan import ClosedLoop, Target, images_within
from tao2serve.loadtest.posting import Image, load_images
from tao2serve.loadtest.tally import Tally

__all__ = ["add_arguments", "listen"]


def add_arguments(parser: Any) -> None:
    """Add to locust's command line, and to its web page, what to post where."""
    parser.add_argument(
        "--images",
        default="",
        env_var="TAO2SERVE_LOADTEST_IMAGES",
        include_in_web_ui=False,
        help="directory of images, or one image; without it, one drawn picture of 960x544",
    )
    parser.add_argument(
        "--endpoint", default="people", help="posts to HOST/serve/ENDPOINT, unless the host has a path itself"
    )


def listen(environment: Any) -> None:
    """Make a load anew whenever somebody starts a test."""
    images = _chosen_images(environment.parsed_options.images)
    environment.events.test_start.add_listener(lambda **_: _start(environment, images))


def _chosen_images(source: str) -> tuple[Image, ...]:
    if source:
        try:
            return load_images(images_within(Path(source)))
        except InputError as error:
            raise SystemExit(f"{error}") from error
    from PIL import Image as Picture

    picture = io.BytesIO()
    Picture.linear_gradient("L").resize((960, 544)).convert("RGB").save(picture, "JPEG")
    return (Image(path=None, body=picture.getvalue(), media_type="image/jpeg"),)


def _start(environment: Any, images: tuple[Image, ...]) -> None:
    """The host may differ from the test before."""
    host = (environment.host or "").rstrip("/")
    url = host if urlsplit(host).path else f"{host}/serve/{environment.parsed_options.endpoint}"
    assignment = Assignment(
        targets=(Target(url=url),),
        shape=ClosedLoop(users=max(environment.runner.target_user_count, 1)),
        order="cycle",
        seed=1,
        warmup_s=0.0,
        run_time_s=0.0,
        timeout_s=10.0,
    )
    load = environment.image_load = Load(tally=Tally())
    load.take(assignment, images)
    load.begun.set()  # and the window has no end: locust says when
