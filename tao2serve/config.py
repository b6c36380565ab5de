"""Settings, and where each value came from: flag > TAO2SERVE_* > file of tuned settings > tao2serve.toml > default."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from tao2serve.errors import UsageError
from tao2serve.runtime.exporter import ADDRESS, FOLDER, PORT, TEXTFILE
from tao2serve.runtime.resize import ResizeMode

__all__ = ["Origin", "PlacementKind", "Settings", "VersionPolicy", "home", "load_settings", "origins"]

Origin: TypeAlias = Literal["flag", "environment", "tuned file", "tao2serve.toml", "default"]
PlacementKind: TypeAlias = Literal["endpoint", "ensemble"]
VersionPolicy: TypeAlias = Literal["latest", "all", "specific"]
FILE: Final = "tao2serve.toml"
PREFIX: Final = "TAO2SERVE_"
SERVICE_VARIABLE: Final = "CLEARML_SERVING_TASK_ID"
OTHER_VARIABLES: Final = ("TAO2SERVE_HOME", "TAO2SERVE_TAO_KEY", PORT, ADDRESS, TEXTFILE, FOLDER)

log = logging.getLogger(__name__)


def home() -> Path:
    """Return the folder that holds the sandbox's state: $TAO2SERVE_HOME, else the user's state directory."""
    named = os.environ.get("TAO2SERVE_HOME")
    if named:
        return Path(named).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state).absolute() / "tao2serve"


class Settings(BaseSettings):
    """What a deployment needs to know besides its model; every field can be a flag, a variable or a line in a file."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, toml_file=FILE, env_ignore_empty=True, extra="ignore", frozen=True
    )

    service: str = Field("", description="ClearML task id of the serving service; empty: the only one that runs")
    model_repository: Path | None = Field(None, description="Triton model repository that tao2serve writes")
    managed: bool = Field(
        False, description="ClearML Serving's own controller owns Triton: it downloads what is published"
    )
    triton_grpc: str = Field("", description="host:port of Triton's gRPC; empty: what the serving service says")
    serving_base_url: str = Field("", description="base URL of the inference service, ending in /serve")
    artifact_project: str = Field("tao2serve", description="ClearML project of deployments and built artifacts")
    clearml_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="how long a call to ClearML may go without an answer"
    )
    deadline_s: float = Field(10.0, gt=0, le=600, description="seconds one inference may take on Triton")
    max_image_bytes: int = Field(32 * 1024 * 1024, gt=0, description="largest image the endpoint takes")
    max_image_pixels: int = Field(64_000_000, gt=0, description="most pixels the endpoint decodes")
    placement: PlacementKind = Field(
        "endpoint", description="where pictures are read and boxes clustered: in ClearML Serving, or in Triton"
    )
    resize: ResizeMode = Field("lanczos", description="how pictures are scaled: TAO's own way, or a faster one")
    uint8_input: bool | None = Field(
        None, description="the served graph takes pixels and scales them itself; unset: if it can be made so"
    )
    absolute_boxes: bool = Field(False, description="the served graph gives boxes instead of offsets")
    max_batch_size: int = Field(8, ge=1, le=1024, description="largest batch Triton forms")
    preferred_batch_sizes: str = Field(
        "",
        pattern=r"^(\d{1,4}(,\d{1,4})*)?$",
        description="batches that do not wait for more, as 4,8; empty: none",
        json_schema_extra={"type": ["string", "array"], "items": {"type": "integer"}},  # see _as_text
    )
    queue_delay_us: int = Field(
        0, ge=0, le=1_000_000, description="microseconds a request may wait for others to share its batch"
    )
    instances: int = Field(1, ge=1, le=64, description="instances of the detector on Triton")
    cpu_instances: int = Field(2, ge=1, le=64, description="instances of an ensemble's first and last model")
    cpu_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="threads of one instance of the detector on a CPU; 0: the cores, shared by the instances",
    )
    warmup: bool = Field(True, description="Triton answers requests of its own before a model is ready")
    version_policy: VersionPolicy = Field("latest", description="which versions of a model's folder Triton serves")
    queue_wait_s: float = Field(
        3600.0, gt=0, le=7 * 86400, description="how long what is sent to a queue may wait for a worker to take it"
    )
    queue_image: str = Field(
        "", description="Docker image of tasks on a queue, for agents that use Docker; empty: NVIDIA's that fits"
    )
    tao_launcher: Path | None = Field(
        None, description="NVIDIA's tao launcher, for encrypted models and training; empty: on PATH"
    )
    tao_key_file: Path | None = Field(None, description="file with the key of encrypted models")
    tao_timeout_s: float = Field(
        7200.0, gt=0, description="how long NVIDIA's container may take, its download included"
    )
    tensor_tolerance: float = Field(1e-3, gt=0, description="largest difference of fp32 tensors that parity allows")
    matched_ratio: float = Field(0.99, ge=0, le=1, description="boxes that must match: fp16, endpoints")
    matched_ratio_int8: float = Field(0.90, ge=0, le=1, description="boxes that must match: int8")
    # clearml-serving looks for changes every five minutes unless told otherwise.
    ready_timeout_s: float = Field(420.0, gt=0, description="how long deploy waits for an endpoint to answer")
    serving_poll_s: float | None = Field(
        None, gt=0, description="seconds between two looks of the inference service; unset: as its log says"
    )

    @field_validator("preferred_batch_sizes", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """A list, as one writes it in TOML, is taken too."""
        return ",".join(str(size) for size in value) if isinstance(value, list | tuple) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(flags: Mapping[str, Any] | None = None, *, tuned: Mapping[str, Any] | None = None) -> Settings:
    """Read the effective settings; flags that are None count as not given. Raises UsageError naming the setting.

    `tuned` are those of a file that `loadtest --tune` wrote (tuned.py): they count for more than tao2serve.toml, and
    less than the environment and flags.
    """
    given = _from_tuned(tuned) | {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        _check_names(TomlConfigSettingsSource(Settings)())
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"setting {name}",
            f"is {first['input']!r}: {first['msg']}",
            hint=f"mend the flag, {PREFIX}{name.upper()}, {FILE} or the file of tuned settings"
            if tuned
            else f"mend the flag, {PREFIX}{name.upper()} or {FILE}",
        ) from error
    except (ValueError, OSError) as error:  # tomllib's error is a ValueError
        raise UsageError(FILE, "cannot be read as TOML", evidence=str(error)) from error
    # clearml-serving's own variable counts too, so that its users need not say it twice.
    if not settings.service and os.environ.get(SERVICE_VARIABLE):
        return settings.model_copy(update={"service": os.environ[SERVICE_VARIABLE]})
    return settings


def _from_tuned(tuned: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the environment does not say otherwise; an empty variable says nothing."""
    return {name: value for name, value in (tuned or {}).items() if not os.environ.get(PREFIX + name.upper())}


def _check_names(in_file: Mapping[str, Any]) -> None:
    """Raise UsageError for a line of the file that is no setting; warn of variables that look like a misspelt one."""
    known = list(Settings.model_fields)
    for name, value in in_file.items():
        if name not in known:
            nearest = get_close_matches(name, known, n=1) if not isinstance(value, Mapping) else []
            raise UsageError(
                FILE,
                f"has {name!r}, which is no setting",
                hint=f"is {nearest[0]} meant?" if nearest else "README.md lists the settings; they stand in no table",
            )
    variables = [PREFIX + name.upper() for name in known]
    for name in os.environ:
        if name.startswith(PREFIX) and name not in (*variables, *OTHER_VARIABLES):
            nearest = get_close_matches(name, variables, n=1, cutoff=0.85)
            if nearest:
                log.warning("%s is no setting; is %s meant?", name, nearest[0])


def origins(flags: Mapping[str, Any] | None = None, *, tuned: Mapping[str, Any] | None = None) -> dict[str, Origin]:
    """Say for each setting where its value comes from."""
    given = {name for name, value in (flags or {}).items() if value is not None}
    in_file = set(TomlConfigSettingsSource(Settings)())

    def origin(name: str) -> Origin:
        if name in given:
            return "flag"
        if os.environ.get(PREFIX + name.upper()):  # an empty one says nothing
            return "environment"
        if name == "service" and "service" not in in_file and os.environ.get(SERVICE_VARIABLE):
            return "environment"
        if name in (tuned or {}):
            return "tuned file"
        return "tao2serve.toml" if name in in_file else "default"

    return {name: origin(name) for name in Settings.model_fields}
