"""Settings: which source wins, and where a value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao2serve.config import home, load_settings, origins
from tao2serve.errors import UsageError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("CLEARML_SERVING_TASK_ID", "TAO2SERVE_SERVICE", "TAO2SERVE_DEADLINE_S"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_flag_beats_variable_beats_file_beats_default(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source is seen, in this order, and its name is told."""
    assert load_settings().deadline_s == 10.0
    (elsewhere / "tao2serve.toml").write_text("deadline_s = 3\ninstances = 2\n")
    assert load_settings().deadline_s == 3.0
    monkeypatch.setenv("TAO2SERVE_DEADLINE_S", "4")
    assert load_settings().deadline_s == 4.0
    assert load_settings({"deadline_s": 5, "instances": None}).deadline_s == 5.0
    found = origins({"deadline_s": None, "service": "x"})
    assert (found["service"], found["deadline_s"], found["instances"], found["triton_grpc"]) == (
        "flag", "environment", "tao2serve.toml", "default",
    )  # fmt: skip


def test_clearml_servings_own_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLEARML_SERVING_TASK_ID names the service unless a setting does."""
    monkeypatch.setenv("CLEARML_SERVING_TASK_ID", "abc")
    assert load_settings().service == "abc"
    assert load_settings({"service": "def"}).service == "def"


@pytest.mark.parametrize("value", ["-1", "soon", "nan"])
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Exit 2 with the setting's name."""
    monkeypatch.setenv("TAO2SERVE_DEADLINE_S", value)
    with pytest.raises(UsageError, match="deadline_s"):
        load_settings()


def test_a_file_that_is_no_toml_is_named(elsewhere: Path) -> None:
    """Exit 2 with the file's name."""
    (elsewhere / "tao2serve.toml").write_text("deadline_s = [")
    with pytest.raises(UsageError, match=r"tao2serve\.toml"):
        load_settings()


def test_home_is_the_variable_or_the_users_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$TAO2SERVE_HOME, then $XDG_STATE_HOME/tao2serve."""
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "h"))
    assert home() == tmp_path / "h"
    monkeypatch.delenv("TAO2SERVE_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert home() == tmp_path / "s" / "tao2serve"


def test_a_line_that_is_no_setting_is_named(elsewhere: Path) -> None:
    """Exit 2, with the setting that is nearest: a misspelt line would otherwise do nothing, unseen."""
    for text, words in (("placemnt = 'ensemble'", "placement"), ("[tao2serve]\nplacement = 'ensemble'", "no table")):
        (elsewhere / "tao2serve.toml").write_text(text)
        with pytest.raises(UsageError) as caught:
            load_settings()
        assert words in caught.value.hint


def test_a_variable_that_looks_misspelt_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be somebody else's, so it is no error."""
    monkeypatch.setenv("TAO2SERVE_PLACEMNT", "ensemble")
    monkeypatch.setenv("TAO2SERVE_SOMETHING_ELSE", "1")
    assert load_settings().placement == "endpoint"
    assert caplog.messages == ["TAO2SERVE_PLACEMNT is no setting; is TAO2SERVE_PLACEMENT meant?"]


def test_lists_and_empty_variables(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch sizes are a list in TOML and a text in a variable; an empty variable is unset."""
    (elsewhere / "tao2serve.toml").write_text("preferred_batch_sizes = [2, 4]")
    monkeypatch.setenv("TAO2SERVE_UINT8_INPUT", "")
    settings = load_settings()
    assert (settings.preferred_batch_sizes, settings.uint8_input) == ("2,4", None)
    monkeypatch.setenv("TAO2SERVE_PREFERRED_BATCH_SIZES", "4,8")
    assert load_settings().preferred_batch_sizes == "4,8"
