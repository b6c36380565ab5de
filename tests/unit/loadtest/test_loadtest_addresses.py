"""Addresses in what is shown and kept: no passwords, no tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from loadtest_samples import record, result

from tao2serve.errors import ServiceError, UsageError
from tao2serve.loadtest import Target
from tao2serve.loadtest.addresses import shown_url
from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.probe import probe
from tao2serve.loadtest.report import write_report
from tao2serve.loadtest.runner import _options


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://h:8080/serve/x", "http://h:8080/serve/x"),
        ("http://bob:S3CRET@h:8080/serve/x", "http://***@h:8080/serve/x"),
        ("https://h/serve/x?token=S3CRET&S3CRET&a=", "https://h/serve/x?token=***&***&a=***"),
        ("https://h/serve/x#S3CRET", "https://h/serve/x#***"),
        ("http://[h/S3CRET", "http://***"),
        ("h:8001", "h:8001"),
        ("street/4, people", "street/4, people"),
    ],
)
def test_secrets_are_masked(address: str, shown: str) -> None:
    """Names of a query stay, so that one knows what was sent; values and passwords do not."""
    assert shown_url(address) == shown


@pytest.mark.parametrize("userinfo", ["bob:S3CRET", "S3CRET"])
def test_a_user_in_a_url_is_refused(userinfo: str) -> None:
    """Locust would not send it, so every request would fail; the error says what to do, and no password."""
    with pytest.raises(UsageError, match="user or password") as caught:
        Target(url=f"http://{userinfo}@h:8080/serve/x")
    assert caught.value.hint
    assert "S3CRET" not in f"{caught.value} {caught.value.hint}"


def test_a_token_is_in_no_file_and_no_process_list(tmp_path: Path) -> None:
    """It is sent, and written nowhere: report.html, result.json, requests.csv, and what locust is started with."""
    pytest.importorskip("plotly")
    target = Target(url="http://127.0.0.1:9/serve/x?token=S3CRET")
    found = result([record(1, 10), record(2, 10)])
    plan = replace(found.plan, targets=(target, replace(target, weight=2)), endpoint="")
    write_report(replace(found, plan=plan), directory=tmp_path)
    assert "token=***" in (tmp_path / "result.json").read_text(encoding="utf-8")
    assert not [path.name for path in tmp_path.iterdir() if b"S3CRET" in path.read_bytes()]
    assert not [word for word in _options(plan, Assignment.of(plan, processes=1)) if "S3CRET" in word]
    assert target.url.endswith("S3CRET")


def test_a_token_is_in_no_error(tmp_path: Path) -> None:
    """Of a probe that gets no answer."""
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"a")
    with pytest.raises(ServiceError) as caught:
        probe([Target(url="http://127.0.0.1:9/serve/x?token=S3CRET")], (picture,), timeout_s=2)
    assert "S3CRET" not in f"{caught.value} {caught.value.evidence}"
