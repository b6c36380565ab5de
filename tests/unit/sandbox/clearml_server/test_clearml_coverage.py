"""The generated table of covered calls."""

from __future__ import annotations

from pathlib import Path

from tao2serve.sandbox.clearml_server.coverage import coverage_table

_REPOSITORY = Path(__file__).parents[4]


def test_the_table_is_current() -> None:
    """docs/clearml-sandbox-coverage.md says what the route table says."""
    written = (_REPOSITORY / "docs" / "clearml-sandbox-coverage.md").read_text()
    assert written == coverage_table()


def test_every_endpoint_says_what_it_does() -> None:
    """No row of the table is empty."""
    assert "|  |" not in coverage_table()
