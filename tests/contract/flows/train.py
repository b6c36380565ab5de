"""A training run with the real SDK: report, upload, close. Prints what was made."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from clearml import InputModel, OutputModel, Task

project, folder = sys.argv[1], Path(sys.argv[2])
weights = folder / "weights.hdf5"
weights.write_bytes(bytes(range(256)) * 8000)
package = folder / "package"
(package / "inner").mkdir(parents=True)
(package / "model.onnx").write_bytes(b"onnx")
(package / "inner" / "labels.txt").write_text("car\nperson\n")

task = Task.init(project, "train one", tags=["tao", "v1"], output_uri=True, auto_connect_frameworks=False)
task.connect({"lr": 0.1, "layers": [1, 2], "nested": {"a": True}})
task.connect_configuration({"random_seed": 42}, name="spec")
task.set_configuration_object("text", config_text="a: 1\nb: 2\n")
logger = task.get_logger()
for iteration in range(5):
    logger.report_scalar("loss", "train", value=1.0 / (iteration + 1), iteration=iteration)
logger.report_single_value("mAP", 0.75)
logger.report_text("hello from training")
logger.report_table("classes", "counts", iteration=0, table_plot=[["class", "n"], ["car", 3]])
for iteration in range(3):
    logger.report_histogram("weights", "conv1", values=[1, iteration], iteration=iteration)
    logger.report_image("image", "first", iteration=iteration, image=np.full((8, 8, 3), 80 * iteration, np.uint8))
task.upload_artifact("metrics", {"mAP": 0.75}, wait_on_upload=True)
task.upload_artifact("folder", package, wait_on_upload=True)
task.set_user_properties(board="nano")

model = OutputModel(task, name="detector", framework="Keras", tags=["tao"], label_enumeration={"car": 1})
model.update_weights(str(weights), auto_delete_file=False)
model.set_metadata("epoch", "120", v_type="int")
model.publish()
packed = OutputModel(task, name="package")
packed.update_weights_package(weights_path=str(package), auto_delete_file=False)
local = InputModel.import_model(weights_url=weights.as_uri(), name="local file", project=project)
again = InputModel.import_model(weights_url=weights.as_uri(), name="local file", project=project)
task.connect(local)
task.flush(wait_for_uploads=True)
task.close()
print(
    json.dumps(
        {
            "task": task.id,
            "model": model.id,
            "package": packed.id,
            "local": local.id,
            "imported_once": local.id == again.id,
        }
    )
)
