"""What a model on Triton takes and gives, by its configuration; asked over gRPC in tests/integration."""

from __future__ import annotations

from typing import Any

import pytest

from tao2serve.errors import InputError
from tao2serve.triton.network import _signature

COVERAGE = {"name": "output_cov/Sigmoid:0", "data_type": "TYPE_FP32", "dims": ["3", "14", "24"]}
OFFSETS = {"name": "output_bbox/BiasAdd:0", "data_type": "TYPE_FP32", "dims": ["12", "14", "24"]}
BOXES = {**OFFSETS, "name": "output_boxes"}
TENSOR = {"name": "input_1:0", "data_type": "TYPE_FP32", "dims": ["3", "224", "384"]}
PIXELS = {"name": "pixels", "data_type": "TYPE_UINT8", "dims": ["224", "384", "3"]}


def config(source: dict[str, Any], bbox: dict[str, Any]) -> dict[str, Any]:
    return {"input": [source], "output": [COVERAGE, bbox]}


@pytest.mark.parametrize("source", [TENSOR, PIXELS])
@pytest.mark.parametrize("bbox", [OFFSETS, BOXES])
def test_every_form_of_a_detector(source: dict[str, Any], bbox: dict[str, Any]) -> None:
    """TAO's graph and lean ones are told apart by the names of their tensors."""
    signature = _signature("grpc://x", config(source, bbox))
    assert (signature.takes_pixels, signature.gives_boxes) == (source is PIXELS, bbox is BOXES)
    assert (signature.width, signature.height, signature.stride) == (384, 224, 16)


@pytest.mark.parametrize(
    "source",
    [
        {**PIXELS, "name": "image"},
        {**PIXELS, "dims": ["3", "224", "384"]},
        {**PIXELS, "data_type": "TYPE_INT8"},
        {**TENSOR, "data_type": "TYPE_FP16"},
        {**TENSOR, "dims": ["-1"]},
    ],
)
def test_tensors_that_cannot_be_compared(source: dict[str, Any]) -> None:
    """Bytes are pixels under one name and shape; other types and shapes are named."""
    with pytest.raises(InputError, match="cannot be compared") as caught:
        _signature("grpc://x", config(source, OFFSETS))
    assert source["name"] in caught.value.evidence
