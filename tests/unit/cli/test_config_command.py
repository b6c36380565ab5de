"""`tao2serve config`: values with their origins, and a schema that tells what tao2serve.toml may hold."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tao2serve.cli.main import run
from tao2serve.config import Settings


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("TAO2SERVE_", "CLEARML_")):
            monkeypatch.delenv(name)


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run([*arguments, "--json"]) == 0
    loaded = json.loads(capsys.readouterr().out)
    assert isinstance(loaded, dict)
    return loaded


def test_show_names_the_origin_of_each_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The environment wins over the file, the file over the default, and show says which it was."""
    (tmp_path / "tao2serve.toml").write_text("deadline_s = 3.0\ninstances = 2\n", encoding="utf-8")
    monkeypatch.setenv("TAO2SERVE_INSTANCES", "5")
    monkeypatch.setenv("CLEARML_SERVING_TASK_ID", "abc")
    settings = document(capsys, "config", "show")["settings"]
    assert set(settings) == set(Settings.model_fields)
    assert settings["deadline_s"] == {"value": 3.0, "origin": "tao2serve.toml"}
    assert settings["instances"] == {"value": 5, "origin": "environment"}
    assert settings["service"] == {"value": "abc", "origin": "environment"}
    assert settings["warmup"] == {"value": True, "origin": "default"}
    assert run(["config", "show"]) == 0
    line = next(each for each in capsys.readouterr().out.splitlines() if each.startswith("instances"))
    assert line.split() == ["instances", "5", "environment"]


def test_show_shows_no_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The key of encrypted models and ClearML's secret are no settings, and are not shown."""
    monkeypatch.setenv("TAO2SERVE_TAO_KEY", "hush-hush")
    monkeypatch.setenv("CLEARML_API_SECRET_KEY", "hush-hush")
    assert run(["config", "show"]) == 0
    assert "hush" not in capsys.readouterr().out


def test_the_schema_takes_what_the_settings_take(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line that load_settings takes passes the schema, and what it refuses does not."""
    schema = document(capsys, "config", "schema")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(Settings.model_fields)
    assert all(member.get("description") for member in schema["properties"].values())
    validator = jsonschema.Draft202012Validator(schema)
    good = 'deadline_s = 3.0\nplacement = "ensemble"\nuint8_input = false\npreferred_batch_sizes = [4, 8]\n'
    assert list(validator.iter_errors(tomllib.loads(good))) == []
    assert Settings(**tomllib.loads(good)).preferred_batch_sizes == "4,8"
    for bad in ('placement = "moon"', "deadline_s = -1.0", "nothing = 1", 'warmup = "often"', "max_batch_size = 0"):
        assert list(validator.iter_errors(tomllib.loads(bad))), bad
