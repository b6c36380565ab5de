"""How checks are run and shown: side by side, within their limits, and without secrets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tritonclient.utils import InferenceServerException

from tao2serve.doctor.check import Check, Examination, examine, without_secrets
from tao2serve.doctor.clearml import _server
from tao2serve.doctor.client import client_examinations, missing_of
from tao2serve.doctor.doctor import anything_wrong
from tao2serve.doctor.servers import _control
from tao2serve.registry.configuration import ClearMLConfiguration, read_configuration


def check(name: str, *, evidence: str = "") -> Check:
    return Check(group="g", name=name, status="ok", fact=name, evidence=evidence)


def test_a_check_that_hangs_holds_up_nobody() -> None:
    """What was found before the limit is kept, the rest is wrong, and all limits run at the same time."""
    never = threading.Event()

    def hangs() -> Iterator[Check]:
        yield check("first")
        never.wait(20)
        yield check("never")

    started = time.monotonic()
    found = examine(
        [
            Examination(group="g", name="one", run=hangs, limit_s=0.3),
            Examination(group="g", name="two", run=hangs, limit_s=0.3),
            Examination(group="g", name="three", run=lambda: iter([check("third")])),
        ],
        secrets=lambda: (),
    )
    assert time.monotonic() - started < 5
    assert [(each.name, each.status) for each in found] == [
        ("first", "ok"), ("one", "wrong"), ("first", "ok"), ("two", "wrong"), ("third", "ok"),
    ]  # fmt: skip
    assert "0.3 s" in found[1].evidence
    never.set()


def test_a_check_that_breaks_is_told() -> None:
    """An exception in a check is a finding, and the others are told all the same."""

    def breaks() -> Iterator[Check]:
        yield check("first")
        raise RuntimeError("oh")

    found = examine(
        [
            Examination(group="g", name="one", run=breaks),
            Examination(group="g", name="two", run=lambda: iter([check("second")])),
        ],
        secrets=lambda: (),
    )
    assert [(each.name, each.status) for each in found] == [("first", "ok"), ("one", "wrong"), ("second", "ok")]
    assert found[1].evidence == "RuntimeError: oh"
    assert anything_wrong(found)
    assert not anything_wrong(found[:1])


def test_secrets_are_blotted_out() -> None:
    """A secret stands nowhere, even in what was found before it was known to be one; nor do users in URLs."""
    known: list[str] = []

    def finds() -> Iterator[Check]:
        known.append("hunter2secret")
        yield check("x", evidence="key hunter2secret at http://me:pw@host:1/a")

    (found,) = examine([Examination(group="g", name="one", run=finds)], secrets=lambda: known)
    assert found.evidence == "key *** at http://***@host:1/a"
    assert without_secrets("a b", ("a", "")) == "a b"


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unmet requirements of all depths are named with their versions, those of an extra only if it is asked for."""
    distributions = {
        "pkg-a": ("1.0", "pkg-b>=2", "pkg-c", "pkg-old; python_version < '3'", "pkg-more>=1; extra == 'more'"),
        "pkg-b": ("1.5",),
        "pkg-c": ("1.0", "pkg-deep==7"),
    }
    for name, (version, *requirements) in distributions.items():
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {each}" for each in requirements)]
        (folder / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert missing_of("pkg-a", "") == ["pkg-b>=2 (here: 1.5)", "pkg-deep==7"]
    assert missing_of("pkg-a", "more") == ["pkg-more>=1"]
    assert missing_of("tao2serve", "") == []


@pytest.mark.parametrize("line", ["nothing = 1", "max_batch_size = 'many'", "not toml"])
def test_bad_settings_are_a_finding(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tao2serve.toml that cannot be read is wrong, and says what is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tao2serve.toml").write_text(line, encoding="utf-8")
    (settings,) = (each for each in client_examinations() if each.name == "settings")
    (found,) = settings.run()
    assert found.status == "wrong"
    assert found.remedy


def test_a_state_folder_is_looked_at_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder that can be made is ok and is not made; one below a file is wrong."""
    (state,) = (each for each in client_examinations() if each.name == "state folder")
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "a" / "b"))
    assert next(state.run()).status == "ok"
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "file" / "b"))
    found = next(state.run())
    assert (found.status, "TAO2SERVE_HOME" in found.remedy) == ("wrong", True)


def test_clearml_of_the_environment_needs_no_sdk(tmp_path: Path) -> None:
    """Four variables are all of a configuration; none of them, and no file, is none; nothing shows the secret."""
    environment = {
        "CLEARML_API_HOST": "http://a:8008/",
        "CLEARML_FILES_HOST": "http://a:8081",
        "CLEARML_API_ACCESS_KEY": "AAAAAAAA",
        "CLEARML_API_SECRET_KEY": "very-secret",
        "CLEARML_CONFIG_FILE": str(tmp_path / "none.conf"),
    }
    configured = read_configuration(environment)
    assert configured is not None
    assert (configured.api, configured.files) == ("http://a:8008", "http://a:8081")
    assert "very-secret" not in repr(configured)
    assert read_configuration({"CLEARML_CONFIG_FILE": str(tmp_path / "none.conf")}) is None


# What Triton 2.51 says in NONE and in POLL mode, and what gRPC says when a call takes too long.
NO_ORDERS = "explicit model load / unload is not allowed if polling is enabled"
TOO_LATE = "Deadline Exceeded"


def test_a_server_that_hangs_is_not_said_to_be_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that listens and never answers has the right address; one that refuses connections may not."""
    monkeypatch.setattr("tao2serve.doctor.clearml._ONE_CALL_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        configured = ClearMLConfiguration(
            api=url, files=url, access_key="k", secret_key="s", origin="here", verify=True
        )
        with httpx.Client(timeout=0.2, trust_env=False) as client:
            hangs = _server(client, configured)
    with httpx.Client(timeout=0.2, trust_env=False) as client:
        refuses = _server(client, configured)
    assert "accepts connections, but has not answered for 0.2 s" in hangs.fact
    assert "CLEARML_API_HOST" not in hangs.remedy
    assert "cannot be reached" in refuses.fact
    assert "CLEARML_API_HOST" in refuses.remedy


@pytest.mark.parametrize(
    ("words", "managed", "status"),
    [
        ("", False, "ok"), (NO_ORDERS, False, "wrong"), (TOO_LATE, False, "skipped"),
        ("", True, "wrong"), (NO_ORDERS, True, "ok"), (TOO_LATE, True, "skipped"),
    ],
)  # fmt: skip
def test_control_is_what_the_owner_of_triton_needs(words: str, managed: bool, status: str) -> None:
    """Our own Triton takes orders, a controller's takes none; an answer that tells neither is not taken for one."""

    class Triton:
        def unload_model(self, name: str, *, client_timeout: float) -> None:
            if words:
                raise InferenceServerException(words)

    found = _control(Triton(), "triton:8001", managed=managed)
    assert found.status == status
    assert bool(found.remedy) == (status == "wrong")
