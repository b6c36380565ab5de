"""What TAO's container is told of ClearML: enough to be tracked, and where its models go."""

from __future__ import annotations

import pytest

from tao2serve.registry.tao_tracking import OUTPUT_VARIABLE, tao_tracking


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("API_HOST", "https://api.example.org/"), ("FILES_HOST", "https://files.example.org"),
        ("API_ACCESS_KEY", "ACCESS"), ("API_SECRET_KEY", "sekret"),
    ):  # fmt: skip
        monkeypatch.setenv(f"CLEARML_{name}", value)
    for name in (OUTPUT_VARIABLE, "CLEARML_WEB_HOST", "CLEARML_API_HOST_VERIFY_CERT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [("", "", "https://files.example.org"), ("", "s3://b/x", "s3://b/x"), ("gs://mine", "s3://b/x", "gs://mine")],
)
def test_where_models_go(monkeypatch: pytest.MonkeyPatch, given: str, variable: str, expected: str) -> None:
    """The option, else the variable, else ClearML's file server; never nothing: they would stay in the container."""
    if variable:
        monkeypatch.setenv(OUTPUT_VARIABLE, variable)
    tracking = tao_tracking(given)
    assert tracking is not None
    assert dict(tracking.variables)[OUTPUT_VARIABLE] == tracking.output_uri == expected


def test_secrets_are_not_shown() -> None:
    """The credentials are among the variables, and in no text of the value."""
    tracking = tao_tracking()
    assert tracking is not None
    assert dict(tracking.variables)["CLEARML_API_SECRET_KEY"] == "sekret"
    assert "sekret" not in repr(tracking)
    assert "ACCESS" not in repr(tracking)
    assert tracking.secrets == ("ACCESS", "sekret")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("http://127.0.0.1:8008", True), ("http://localhost", True), ("http://[::1]:8", True), ("https://a.org", False)],
)
def test_what_only_this_machine_reaches(monkeypatch: pytest.MonkeyPatch, host: str, expected: bool) -> None:
    """A server on loopback is out of a container's reach unless it shares the network."""
    monkeypatch.setenv("CLEARML_API_HOST", host)
    tracking = tao_tracking()
    assert tracking is not None
    assert tracking.on_loopback is expected
