"""The other way to ONNX: tf-keras and tf2onnx, with TAO's padding put right. Run by TensorFlow's environment.

TAO patches Keras: a convolution's `same` pads both sides by `((k - 1) * dilation + 1) // 2`, whatever the
stride. Here the padding is an argument of TensorFlow's own convolution, so the graph has not one node more.
TensorFlow only traces the graph and never runs it, so it does not matter that its CPU kernels want channels
last. Networks with DepthwiseConv2D `same` need nothing; pooling `same` is refused rather than done wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf2onnx
import tf_keras

_OPSET = 13  # as ours


class _Conv2D(tf_keras.layers.Conv2D):
    """Conv2D padded as TAO does it."""

    def call(self, inputs: Any) -> Any:
        sides = [[0, 0], [0, 0]]
        for size, dilation in zip(self.kernel_size, self.dilation_rate, strict=True):
            zeros = ((size - 1) * dilation + 1) // 2 if self.padding == "same" else 0
            sides.append([zeros, zeros])
        outputs = tf.nn.conv2d(
            inputs,
            self.kernel,
            strides=self.strides,
            padding=sides,
            data_format="NCHW",
            dilations=self.dilation_rate,
        )
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias, data_format="NCHW")
        return self.activation(outputs)


def main() -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--bare", action="store_true", help="leave out all of tf2onnx's optimizers")
    parser.add_argument("--stock", action="store_true", help="leave TensorFlow's padding, which is wrong")
    options = parser.parse_args()
    model = tf_keras.models.load_model(
        options.source, custom_objects={} if options.stock else {"Conv2D": _Conv2D}, compile=False
    )
    for layer in model.layers:
        if "Pooling2D" in type(layer).__name__ and layer.padding == "same" and max(layer.pool_size) > 2:
            raise SystemExit(f"{layer.name}: pooling with `same` above 2x2 is not put right here")
    signature = (tf.TensorSpec(model.input_shape, tf.float32, name="input_1"),)
    tf2onnx.convert.from_keras(
        model,
        input_signature=signature,
        opset=_OPSET,
        output_path=str(options.output),
        optimizers={} if options.bare else None,  # None: tf2onnx's own choice
    )


if __name__ == "__main__":
    main()
