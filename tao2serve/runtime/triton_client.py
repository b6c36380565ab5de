"""One model of a Triton, asked over gRPC from an event loop, with as few copies of the tensor as there can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ImageRefusedError", "InputTensor", "TritonClient", "TritonError", "bytes_element"]

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
DTYPES: Final = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}
# Field 7 of ModelInferRequest, raw_input_contents, as protobuf writes it: number << 3 | 2 for bytes.
RAW_CONTENTS: Final = bytes([7 << 3 | 2])
NO_LIMIT: Final = -1
# A Triton that comes back is found within a second; gRPC's own pauses grow to two minutes.
RECONNECT: Final = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2000),  # how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 1000),
)
UNAVAILABLE, TIMED_OUT = 503, 504


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTensor:
    """The one input of a model, whose shape is the same in every request; the batch dimension is part of it."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class TritonError(Exception):
    """Triton gave no answer: the HTTP status and the sentence the caller gets."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class ImageRefusedError(Exception):
    """The model itself refused what it was asked about; the text is the reason it gave."""


class TritonClient:
    """A channel to one model; made in the event loop that uses it.

    `refusal` is how a model begins the reason for refusing an input, "" if it never does.
    """

    def __init__(
        self, address: str, model: str, *, tensor: InputTensor, outputs: Sequence[str], refusal: str = ""
    ) -> None:
        import grpc
        from tritonclient.grpc import service_pb2

        self._model, self._refusal = model, refusal
        request = service_pb2.ModelInferRequest(model_name=model)
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for name in outputs:
            request.outputs.add(name=name)
        # Protobuf messages one after the other are one message, so this part is made once, and the tensor is
        # appended as it is. The usual way copies it twice more: into the message, and into its serialization.
        self._head = request.SerializeToString()
        options = [
            ("grpc.max_send_message_length", NO_LIMIT),
            ("grpc.max_receive_message_length", NO_LIMIT),
            *RECONNECT,
        ]
        self._channel = grpc.aio.insecure_channel(address, options=options, compression=grpc.Compression.NoCompression)
        self._call = self._channel.unary_unary(
            METHOD, request_serializer=None, response_deserializer=service_pb2.ModelInferResponse.FromString
        )

    async def infer(self, contents: Sequence[bytes | memoryview], *, timeout_s: float) -> dict[str, NDArray[Any]]:
        """Return the named outputs for one input, given as pieces of its bytes.

        Raises TritonError with the status for the caller, ImageRefusedError if the model refused the input.
        """
        import grpc

        size = sum(len(piece) for piece in contents)
        request = b"".join((self._head, RAW_CONTENTS, _varint(size), *contents))
        try:
            response = await self._call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._fault(error, error.code(), timeout_s) from error
        return {
            tensor.name: np.frombuffer(content, DTYPES[tensor.datatype]).reshape(tuple(tensor.shape))
            for tensor, content in zip(response.outputs, response.raw_output_contents, strict=True)
        }

    def _fault(self, error: Any, code: Any, timeout_s: float) -> Exception:
        import grpc

        reason = " ".join(str(error.details()).split())
        if code == grpc.StatusCode.INVALID_ARGUMENT and self._refusal and self._refusal in reason:
            return ImageRefusedError(reason.partition(self._refusal)[2])
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return TritonError(TIMED_OUT, f"Triton gave no answer for {self._model} in time")
        return TritonError(UNAVAILABLE, f"Triton cannot run {self._model}: {reason[:200]}")


def bytes_element(content: bytes) -> tuple[bytes, bytes]:
    """Return the pieces of a BYTES tensor of one element: its length in four bytes, and itself."""
    return len(content).to_bytes(4, "little"), content


def _varint(number: int) -> bytes:
    """Return an unsigned number as protobuf writes lengths: seven bits a byte, lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
