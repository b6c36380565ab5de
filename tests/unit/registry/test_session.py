"""What is said of a ClearML server that does not answer the first question."""

from __future__ import annotations

import socket

import pytest

from tao2serve.errors import ServiceError
from tao2serve.registry.session import _require_answer


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """A socket whose address is the API server's; it listens, and nobody ever answers."""
    from clearml.backend_api.session import Session

    made = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{made.getsockname()[1]}"
    monkeypatch.setattr(Session, "get_api_server_host", staticmethod(lambda *_arguments: url))
    return made


def test_a_server_that_hangs_is_not_said_to_be_elsewhere(listening: socket.socket) -> None:
    """Its address is right: the error says how long it was waited for, and does not send the user to look there."""
    with listening, pytest.raises(ServiceError) as caught:
        _require_answer.__wrapped__(0.2)
    assert "has not answered for 0.2 s" in caught.value.fact
    assert "CLEARML_API_HOST" not in caught.value.hint


def test_a_server_that_is_not_there_may_be_elsewhere(listening: socket.socket) -> None:
    """A refused connection: the address is the first thing to check."""
    listening.close()
    with pytest.raises(ServiceError) as caught:
        _require_answer.__wrapped__(0.2)
    assert caught.value.fact == "cannot be reached"
    assert "CLEARML_API_HOST" in caught.value.hint
