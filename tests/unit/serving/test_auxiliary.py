"""What the controller of clearml-serving makes of an endpoint's auxiliary config: its own code writes config.pbtxt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tao2serve.config import Settings
from tao2serve.errors import InputError, UsageError
from tao2serve.registry.publish import PublishedModel
from tao2serve.serving.auxiliary import MODEL_PARAMETER, auxiliary_config
from tao2serve.serving.managed import auxiliary_for, check_manageable
from tao2serve.triton.config import Batching, ModelConfig, Warmup, parse_config, render_config
from tao2serve.values import Tensor

# clearml's copy of pyhocon calls pyparsing by its old names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MODEL = "3054694a13b24dff916cae3bbba07112"
PIXELS = Tensor(name="pixels", datatype="UINT8", shape=(192, 320, 3))
PLANES = Tensor(name="input_1:0", datatype="FP32", shape=(3, 192, 320))
OUTPUTS = (
    Tensor(name="output_cov/Sigmoid:0", datatype="FP32", shape=(2, 12, 20)),
    Tensor(name="output_bbox/BiasAdd:0", datatype="FP32", shape=(8, 12, 20)),
)
PYTHON = {"backend": "python", "inputs": (PIXELS,)}
PLAN = {"backend": "tensorrt", "inputs": (PLANES,), "on_gpu": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {**PYTHON},
    "as deployed": {
        **PYTHON,
        "batching": Batching(),
        "warmup": (Warmup(), Warmup(batch=8)),
        "parameters": {"precision": "fp32"},
    },
    "all there is": {
        **PYTHON,
        "max_batch_size": 16,
        "instances": 3,
        "batching": Batching(queue_delay_us=250, preferred_sizes=(4, 16)),
        "parameters": {"precision": "int8", "bbox_scale": "35.0", "bbox_offset": "0.5", "cpu_threads": "2"},
        "version_policy": "all",
    },
    "one preferred size": {**PYTHON, "batching": Batching(preferred_sizes=(4,)), "version_policy": "specific"},
    "no batches": {**PYTHON, "max_batch_size": 1},
    "plan": {**PLAN, "batching": Batching(), "warmup": (Warmup(),), "parameters": {"precision": "fp16"}},
}


def config_of(**options: Any) -> ModelConfig:
    return ModelConfig(name="street_4", outputs=OUTPUTS, **options)


def written_by_the_controller(config: ModelConfig, folder: Path) -> Any:
    """The message of the config.pbtxt that clearml-serving writes for the endpoint, as ClearML has kept it: as text."""
    from clearml.utilities.config import config_dict_to_text, text_to_config_dict
    from clearml_serving.engines.triton.triton_helper import TritonHelper
    from clearml_serving.serving.endpoints import ModelEndpoint
    from clearml_serving.serving.model_request_processor import ModelRequestProcessor

    types = {"FP32": "float32", "UINT8": "uint8"}
    endpoint = ModelEndpoint(
        engine_type="triton",
        serving_url="street",
        version="4",
        model_id=MODEL,
        input_name=[tensor.name for tensor in config.inputs],
        input_type=[types[tensor.datatype] for tensor in config.inputs],
        input_size=[list(tensor.shape) for tensor in config.inputs],
        output_name=[tensor.name for tensor in config.outputs],
        output_type=[types[tensor.datatype] for tensor in config.outputs],
        output_size=[list(tensor.shape) for tensor in config.outputs],
        auxiliary_cfg=auxiliary_config(config, model_id=MODEL),
    )
    assert ModelRequestProcessor._validate_model(endpoint)
    kept = text_to_config_dict(config_dict_to_text({"street/4": endpoint.as_dict(remove_null_entries=True)}))
    target = folder / "config.pbtxt"
    framework = "TensorRT" if config.backend == "tensorrt" else "ONNX"
    TritonHelper.create_config_pbtxt(ModelEndpoint(**kept["street/4"]), str(target), platform=framework)
    return parse_config(target.read_text(encoding="utf-8"), source=target)


@pytest.mark.parametrize("options", CONFIGS.values(), ids=list(CONFIGS))
def test_the_controller_writes_what_we_would(options: dict[str, Any], tmp_path: Path) -> None:
    """Field by field the same message, but for the published model's id and the platform that a plan is given."""
    config = config_of(**options)
    theirs = written_by_the_controller(config, tmp_path)
    ours = parse_config(render_config(config), source=Path("config.pbtxt"))
    assert theirs.name == ""  # Triton takes the folder's
    theirs.name = ours.name
    assert theirs.parameters.pop(MODEL_PARAMETER).string_value == MODEL
    assert theirs.platform == ("tensorrt_plan" if config.backend == "tensorrt" else "")
    theirs.platform = ours.platform
    for field in ours.DESCRIPTOR.fields:
        assert getattr(theirs, field.name) == getattr(ours, field.name), field.name


def test_a_warmup_that_needs_a_file_is_left_out(tmp_path: Path) -> None:
    """The controller puts files into the version's folder only, and Triton refuses a model whose warm-up has none."""
    config = config_of(**PYTHON, warmup=(Warmup(), Warmup(batch=2, files={"pixels": "picture"})))
    assert [warmup.batch_size for warmup in written_by_the_controller(config, tmp_path).model_warmup] == [1]


@pytest.mark.parametrize("text", ["a=b", 'say "this"', "it's", "back\\slash"])
def test_text_that_the_controller_would_change_is_refused(text: str) -> None:
    """clearml-serving turns `=` into `:` and takes quotes away, wherever they stand: exit 2 before it can."""
    with pytest.raises(UsageError, match="cannot be said"):
        auxiliary_config(config_of(**PYTHON, parameters={"note": text}), model_id=MODEL)


@pytest.mark.parametrize("uri", ["", "file:///workspace/model.zip", "/workspace/model.zip"])
def test_a_model_in_a_folder_is_never_registered(uri: str) -> None:
    """The controller of clearml-serving 1.3.5 moves such a file away from its owner: exit 3."""
    with pytest.raises(InputError, match="move its file away"):
        auxiliary_for((), PublishedModel(model_id=MODEL, uri=uri), Settings(managed=True))


def test_an_ensemble_cannot_be_had_of_the_controller() -> None:
    """It makes one Triton model of each endpoint version: exit 2 with the ways out; without it all is well."""
    check_manageable(Settings(managed=False, placement="ensemble"))
    check_manageable(Settings(managed=True, placement="endpoint"))
    with pytest.raises(UsageError) as caught:
        check_manageable(Settings(managed=True, placement="ensemble"))
    assert "--no-managed" in caught.value.hint
