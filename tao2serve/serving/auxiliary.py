"""A Triton model's configuration as an endpoint of ClearML Serving carries it: its fields, and auxiliary config.

Its Triton controller writes config.pbtxt from both, through HOCON: dictionaries become text, quotes are taken away
unless they are escaped, and `=` becomes `:`. Names and shapes of tensors are the endpoint's own fields; with them in
the auxiliary config clearml-serving refuses the endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import UsageError
from tao2serve.triton.config import CONFIG_FILE, PLAN_BACKEND, ModelConfig, parse_config, render_config

__all__ = ["MODEL_PARAMETER", "auxiliary_config"]

# Tells the model that is meant from one of the same name that an earlier serving service left in the folder.
MODEL_PARAMETER: Final = "clearml_model"
# What the endpoint's own fields say, and the name, which is that of the controller's folder.
ELSEWHERE: Final = ("name", "input", "output")
PLAN_PLATFORM: Final = "tensorrt_plan"
MANGLED: Final = frozenset("=\"'\\")


def auxiliary_config(config: ModelConfig, *, model_id: str) -> dict[str, Any]:
    """Return what config.pbtxt says besides name, input and output, as the `auxiliary_cfg` of an endpoint.

    The published model's id is added as a parameter. Warm-up that needs a file is left out, since the controller
    puts files into the version's folder only. Raises UsageError for text that does not survive the controller.
    """
    message = parse_config(render_config(config), source=Path(CONFIG_FILE))
    message.parameters[MODEL_PARAMETER].string_value = model_id
    if config.backend == PLAN_BACKEND:
        message.platform = PLAN_PLATFORM  # the controller knows no platform for TensorRT
    warm = [each for each in message.model_warmup if not any(entry.input_data_file for entry in each.inputs.values())]
    del message.model_warmup[:]
    message.model_warmup.extend(warm)
    return {name: value for name, value in _dictionary(message).items() if name not in ELSEWHERE}


def _dictionary(message: Any) -> dict[str, Any]:
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of_value = _single(field.message_type.fields_by_name["value"])
        return [{"key": _quoted(key), "value": of_value(value[key])} for key in sorted(value)]
    single = _single(field)
    is_many = isinstance(value, Iterable) and not isinstance(value, str)
    return [single(entry) for entry in value] if is_many else single(value)


def _single(field: Any) -> Callable[[Any], Any]:
    """Return how one value of the field is written."""
    if field.message_type is not None:
        return _dictionary
    if field.enum_type is not None:
        return lambda number: str(field.enum_type.values_by_number[number].name)
    return lambda value: _quoted(value) if isinstance(value, str) else value


def _quoted(text: str) -> str:
    if MANGLED & set(text):
        raise UsageError(
            f"{text!r}", "cannot be said to ClearML Serving's Triton controller", evidence="it holds one of = \" ' \\"
        )
    return f'"{text}"'
