"""Damaged files of every kind end in an InputError or are read: never a traceback, a crash or a hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from keras_files import tiny_resnet

import tao2serve
from tao2serve.export.convert import export_onnx
from tao2serve.runtime import ClassParams, DetectorParams

SPEC = """
augmentation_config { preprocessing {
  output_image_width: 48 output_image_height: 32 output_image_channel: 3 } }
model_config { arch: "resnet" num_layers: 18 objective_set { bbox { scale: 35.0 offset: 0.5 } cov { } } }
cost_function_config { target_classes { name: "person" } target_classes { name: "bag" } }
postprocessing_config { target_class_config { key: "default" value: { clustering_config {
  clustering_algorithm: DBSCAN coverage_threshold: 0.005 dbscan_eps: 0.15 dbscan_min_samples: 1 } } } }
evaluation_config { average_precision_mode: INTEGRATE
  minimum_detection_ground_truth_overlap { key: "person" value: 0.5 }
  minimum_detection_ground_truth_overlap { key: "bag" value: 0.5 }
  evaluation_box_config { key: "person" value { maximum_height: 99 maximum_width: 99 } }
  evaluation_box_config { key: "bag" value { maximum_height: 99 maximum_width: 99 } } }
"""
CLUSTERING = """
stride: 16
classwise_clustering_config { key: "person" value { coverage_threshold: 0.005
  dbscan_config { dbscan_eps: 0.3 dbscan_min_samples: 0.05 dbscan_confidence_threshold: 0.9 } } }
"""
LABELS = "car 0.00 1 0.00 34.00 265.50 275.50 351.50 0.00 0.00 0.00 0.00 0.00 0.00 0.00\n" * 3
STATUS = [
    {"date": "5/3/2024", "time": "9:1:2", "status": "STARTED"},
    {"epoch": 9, "kpi": {"mean average precision": 61.5}, "categorical": {"average_precision": {"car": 1.0}}},
]
PARAMS = DetectorParams(
    channels=3, height=48, width=64, bbox_scale=35.0, bbox_offset=0.5, classes=(ClassParams(name="car"),)
)


def test_damaged_files(tmp_path: Path) -> None:
    """300 mutations of each kind of file that is read from outside raise InputError at most."""
    export_onnx(tiny_resnet(tmp_path / "model.hdf5"), output=tmp_path / "model.onnx")
    (tmp_path / "spec.txt").write_text(SPEC)
    (tmp_path / "clustering.prototxt").write_text(CLUSTERING)
    (tmp_path / "label.txt").write_text(LABELS)
    (tmp_path / "status.json").write_text("\n".join(json.dumps(line) for line in STATUS))
    (tmp_path / "params.json").write_text(json.dumps(PARAMS.to_dict()))
    cov, bbox = np.ones((1, 2, 3, 4), dtype=np.float32), np.ones((1, 8, 3, 4), dtype=np.float32)
    np.savez(tmp_path / "raw.npz", output_cov=cov, output_bbox=bbox, orig_sizes_wh=np.array([[96, 64]]))
    program = Path(__file__).with_name("fuzz_readers.py")
    paths = (Path(tao2serve.__file__).parents[1], Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), "300", "7"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("refused") == 8
