"""No picture and no boxes break the drawing."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tao2serve.serving.drawing import draw
from tao2serve.values import Prediction

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 700))
NUMBERS = st.one_of(st.floats(-50, 750), st.floats(allow_nan=True, allow_infinity=True), st.integers(-3, 3).map(float))
BOXES = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
MODES = st.sampled_from(["RGB", "L", "RGBA", "P", "1", "LA", "I;16"])


@settings(deadline=None, max_examples=150)
@given(width=SIDES, height=SIDES, mode=MODES, boxes=st.lists(st.tuples(BOXES, st.text(max_size=30)), max_size=12))
def test_any_boxes_on_any_picture_are_drawn(
    width: int, height: int, mode: str, boxes: list[tuple[tuple[float, float, float, float], str]]
) -> None:
    """Degenerate, inverted, far out and not finite ones too, under any label: the picture keeps its size."""
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, format="PNG")
    predictions = [
        Prediction(bbox=box, score=0.5, raw_score=1.0, class_id=number, label=label)
        for number, (box, label) in enumerate(boxes)
    ]
    assert draw(buffer.getvalue(), predictions).size == (width, height)
