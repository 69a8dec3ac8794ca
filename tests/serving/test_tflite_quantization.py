"""Which operations become bytes, by their scopes, in a network of a few of them."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.tflite_export import NetworkLayers, quantize_network

IMAGE = (1, 16, 16, 3)
LAYERS = NetworkLayers({"backbone", "fpn"}, {"head"}, {"stem", "objectness_logits", "anchor_deltas"})


def convolution(inputs, scope, filters=8, size=3):
    kernel = np.random.default_rng(len(scope)).normal(size=(size, size, inputs.shape[-1], filters)) / 5
    with tf.name_scope(scope):
        return tf.nn.conv2d(inputs, np.float32(kernel), 1, "SAME")


def network(image):
    """The scopes of a `MaskRCNN`: bytes are wanted in res2's two convolutions, their sum, the FPN and the head's."""
    stem = tf.nn.relu(convolution(image, "mask_rcnn/backbone/stem"))
    with tf.name_scope("mask_rcnn/backbone/res2_0/conv1/norm"):
        normed = stem * tf.reduce_mean(stem)
    first = convolution(normed, "mask_rcnn/backbone/res2_0/conv1")
    second = convolution(first, "mask_rcnn/backbone/res2_0/conv2")
    with tf.name_scope("mask_rcnn/backbone/res2_0"):
        features = first + second
    features = convolution(features, "mask_rcnn/fpn/output2")
    hidden = convolution(features, "mask_rcnn/head_1/conv_1")
    logits = convolution(hidden, "mask_rcnn/head_1/objectness_logits_1", 3, 1)
    with tf.name_scope("mask_rcnn/box_decoding"):
        boxes = tf.exp(convolution(hidden, "mask_rcnn/head_1/anchor_deltas", 4, 1)) + 2.0
    return {"scores": tf.sigmoid(logits), "boxes": boxes}


@pytest.fixture(scope="module")
def flatbuffer():
    graph = tf.function(network, autograph=False).get_concrete_function(tf.TensorSpec(IMAGE, name="image"))
    module = tf.Module()
    module.serve = tf.function(lambda image: graph(image), autograph=False)
    concrete = module.serve.get_concrete_function(tf.TensorSpec(IMAGE, name="image"))
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert()


@pytest.fixture(scope="module")
def samples():
    random = np.random.default_rng(0)
    return [{"image": random.normal(size=IMAGE).astype(np.float32)} for _ in range(4)]


def run(model, sample):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    return interpreter.get_signature_runner("serving_default")(**sample)


def kinds_of(model):
    """Of each operation by the scope of its first output: its name, and the types of its first input and weights."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    types = {value: name for name, value in vars(schema.TensorType).items()}
    root = schema.Model.GetRootAsModel(model, 0)
    graph = root.Subgraphs(0)
    found = {}
    for position in range(graph.OperatorsLength()):
        operator = graph.Operators(position)
        code = names[root.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]
        output = graph.Tensors(operator.OutputsAsNumpy()[0]).Name().decode()
        inputs = [types[graph.Tensors(index).Type()] for index in operator.InputsAsNumpy()[:2]]
        found[code, output] = inputs
    return found


def of(found, code, part):
    """The types of the one operation of this kind with `part` in its scope."""
    (types,) = [types for (one, name), types in found.items() if one == code and part in name]
    return types


def test_int8_computes_the_network_in_bytes_and_the_rest_in_floats(flatbuffer, samples):
    pytest.importorskip("ai_edge_quantizer")
    made = quantize_network(flatbuffer, "int8", LAYERS, samples)
    found = kinds_of(made)
    for part in ("res2_0/conv1", "res2_0/conv2", "fpn/output2", "head_1/conv_1"):
        assert of(found, "CONV_2D", part) == ["INT8", "INT8"], part
    assert of(found, "ADD", "res2_0/") == ["INT8", "INT8"]
    for part in ("stem", "objectness_logits", "anchor_deltas"):
        assert of(found, "CONV_2D", part) == ["FLOAT32", "FLOAT32"], part
    assert of(found, "MUL", "norm") == ["FLOAT32", "FLOAT32"]
    assert [types[0] for (code, _), types in found.items() if code == "EXP"] == ["FLOAT32"]
    for exact, rounded in zip(run(flatbuffer, samples[0]).values(), run(made, samples[0]).values(), strict=True):
        assert exact.dtype == rounded.dtype == np.float32
        error = np.abs(exact - rounded).mean() / np.ptp(exact)
        assert 1e-6 < error < 0.05


def test_dynamic_keeps_activations_as_floats(flatbuffer, samples):
    pytest.importorskip("ai_edge_quantizer")
    made = quantize_network(flatbuffer, "dynamic", LAYERS)
    found = kinds_of(made)
    assert {code for code, _ in found}.isdisjoint({"QUANTIZE", "DEQUANTIZE"})
    for part in ("res2_0/conv1", "res2_0/conv2", "fpn/output2", "head_1/conv_1"):
        assert of(found, "CONV_2D", part) == ["FLOAT32", "INT8"], part
    for part in ("stem", "objectness_logits", "anchor_deltas"):
        assert of(found, "CONV_2D", part) == ["FLOAT32", "FLOAT32"], part
    exact, rounded = run(flatbuffer, samples[0])["scores"], run(made, samples[0])["scores"]
    assert 1e-6 < np.abs(exact - rounded).mean() / np.ptp(exact) < 0.05


@pytest.mark.parametrize("kind", ["dynamic", "int8"])
def test_a_missing_quantiser_is_named(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)  # None: importing it raises ImportError
    with pytest.raises(UserError, match=r"^Quantising needs ai-edge-quantizer: pip install 'mrcnn-tf\[edge\]'\.$"):
        quantize_network(b"", kind, LAYERS, [])
