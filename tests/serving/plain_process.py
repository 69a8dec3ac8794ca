"""Run by test_served in a process of its own, which doesn't have this package: a SavedModel in plain TensorFlow.

Arguments: the model's folder, a file of inputs, a file for the outputs. Prints the operations that this TensorFlow
doesn't know.
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry


def operations(folder):
    """The names of all operations in a SavedModel's graph and functions."""
    (graph,) = SavedModel.FromString((pathlib.Path(folder) / "saved_model.pb").read_bytes()).meta_graphs
    functions = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for function in functions for node in function.node_def)]
    return {node.op for node in nodes} - {function.signature.name for function in functions}


def session_outputs(folder, files):
    """The outputs of the C++ loader's session, which reads nothing of Python's objects."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def["serving_default"]
        feeds = {signature.inputs["image_bytes"].name: files}
        return session.run({name: tensor.name for name, tensor in signature.outputs.items()}, feeds)


if __name__ == "__main__":
    folder, inputs, outputs = sys.argv[1:]
    unknown = {name for name in operations(folder) if op_def_registry.get(name) is None}
    print(*sorted(unknown))
    if not unknown:
        files = np.load(inputs, allow_pickle=True)["files"].tolist()
        model = tf.saved_model.load(folder)
        outputs_here = model.signatures["serving_default"](image_bytes=tf.constant(files))
        eager = {name: values.numpy() for name, values in outputs_here.items()}
        session = {f"session_{name}": values for name, values in session_outputs(folder, files).items()}
        np.savez(outputs, **eager, **session)
