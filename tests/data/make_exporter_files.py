"""Write the files of this folder with the real exporters: one small Keras model with random weights, three forms.

Not run by the tests. Needs Python 3.7 and, from PyPI, tensorflow 1.15.5, keras 2.2.4, keras2onnx 1.7.0,
tf2onnx 1.9.2, h5py 2.10.0, protobuf 3.20.3, onnx 1.11.0, onnxconverter-common 1.13.0, numpy 1.18.5:

    python make_exporter_files.py FOLDER
"""

import sys
from pathlib import Path

import keras
import keras2onnx
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import backend
from keras.backend import tensorflow_backend

OUTPUTS = ["output_cov/Sigmoid", "output_bbox/BiasAdd"]


def padded(x, rows, columns):
    return tf.pad(x, [[0, 0], [0, 0], [rows, rows], [columns, columns]])


def conv2d(x, kernel, strides=(1, 1), padding="valid", data_format=None, dilation_rate=(1, 1)):
    """TAO's rule: both sides alike, whatever the stride."""
    if padding == "same":
        sizes = [side.value for side in kernel.get_shape()[:2]]
        x = padded(x, *(((size - 1) * d + 1) // 2 for size, d in zip(sizes, dilation_rate)))  # noqa: B905
    return tf.nn.convolution(
        x, kernel, padding="VALID", strides=strides, dilation_rate=dilation_rate, data_format="NCHW"
    )


def pool2d(x, pool_size, strides=(1, 1), padding="valid", data_format=None, pool_mode="max"):
    """TAO's rule: zeros on both sides, which take part."""
    if padding == "same":
        x = padded(x, *((size - 1) // 2 for size in pool_size))
    pool = tf.nn.max_pool if pool_mode == "max" else tf.nn.avg_pool
    return pool(x, (1, 1, *pool_size), (1, 1, *strides), padding="VALID", data_format="NCHW")


def batch_normalization(x, mean, var, beta, gamma, axis=-1, epsilon=1e-3):
    return tf.nn.batch_normalization(x, mean, var, beta, gamma, epsilon)


def tao_backend():
    """Let Keras build the graph TAO's Keras builds."""
    for function in (conv2d, pool2d, batch_normalization):
        setattr(backend, function.__name__, function)
        setattr(tensorflow_backend, function.__name__, function)
    tensorflow_backend._has_nchw_support = lambda: True
    backend.set_image_data_format("channels_first")
    backend.set_learning_phase(0)


def detector():
    """ResNet's stem with its pooling, one residual block, both heads: every kind of pads keras2onnx gets wrong."""
    layers = keras.layers
    source = keras.Input((3, 32, 48), name="input_1")
    x = layers.Conv2D(6, 7, strides=2, padding="same", name="conv1")(source)
    x = layers.BatchNormalization(axis=1, epsilon=1e-3, name="bn_conv1")(x)
    x = layers.Activation("relu", name="activation_1")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    y = layers.Conv2D(6, 3, strides=2, padding="same", name="block_1a_conv_1")(x)
    y = layers.Activation("relu", name="block_1a_relu_1")(y)
    y = layers.Conv2D(6, 3, padding="same", name="block_1a_conv_2")(y)
    shortcut = layers.Conv2D(6, 1, strides=2, name="block_1a_conv_shortcut")(x)
    x = layers.Activation("relu", name="block_1a_relu")(layers.Add(name="add_1")([y, shortcut]))
    bbox = layers.Conv2D(8, 1, padding="same", name="output_bbox")(x)
    coverage = layers.Conv2D(2, 1, padding="same", activation="sigmoid", name="output_cov")(x)
    model = keras.Model(source, [bbox, coverage], name="resnet_detectnet_v2")
    chance = np.random.RandomState(0)
    model.set_weights([chance.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else chance.normal(0, 0.3, w.shape)
                       for w in model.get_weights()])  # fmt: skip
    return model


def by_tf2onnx(model):
    session = backend.get_session()
    frozen = tf.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), OUTPUTS)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        made = tf2onnx.tfonnx.process_tf_graph(
            graph, input_names=["input_1:0"], output_names=[name + ":0" for name in OUTPUTS], opset=12
        )
        return tf2onnx.optimizer.optimize_graph(made).make_model("test")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tao_backend()
    keras_model = detector()
    keras_model.save(str(folder / "keras.hdf5"), include_optimizer=False)
    onnx.save(keras2onnx.convert_keras(keras_model, keras_model.name), str(folder / "keras2onnx.onnx"))
    onnx.save(by_tf2onnx(keras_model), str(folder / "tf2onnx.onnx"))
