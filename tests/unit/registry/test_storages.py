"""What is said of storages, and of their URLs."""

from __future__ import annotations

import sys

import pytest

from tao2serve.errors import ToolError
from tao2serve.registry.download import file_name, require_driver, shown


@pytest.mark.parametrize(
    ("uri", "module", "extra"),
    [
        ("s3://bucket/model.hdf5", "boto3", "clearml[s3]"),
        ("gs://bucket/model.hdf5", "google.cloud", "clearml[gs]"),
        ("azure://account.blob.core.windows.net/box/model.hdf5", "azure", "clearml[azure]"),
    ],
)
def test_a_missing_driver_is_named_with_its_remedy(
    uri: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the SDK logs a line and returns None, the error has exit code 4 and the pip command."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ToolError, match="not installed") as caught:
        require_driver(uri)
    assert caught.value.hint == f"pip install '{extra}'"
    assert caught.value.exit_code == 4


def test_other_storages_need_none() -> None:
    """HTTP and files need no further package."""
    for uri in ("http://host/model.hdf5", "https://host/model.hdf5", "file:///a/model.hdf5", "/a/model.hdf5"):
        require_driver(uri)


def test_what_may_be_secret_is_not_shown() -> None:
    """Signatures in a query and names before the host leave a text; the rest of it stays."""
    text = "GET https://me:secret@host/a b.hdf5 and https://host/a.hdf5?X-Amz-Signature=secret&b=1 (403)"
    assert "secret" not in shown(text)
    assert shown(text) == "GET https://host/a b.hdf5 and https://host/a.hdf5?… (403)"
    assert file_name("http://h/a/model.epoch%2D3.hdf5?x=1") == "model.epoch-3.hdf5"
