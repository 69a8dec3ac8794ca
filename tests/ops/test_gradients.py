import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops as framework

from mrcnn_tf.ops.gradients import with_gradient
from mrcnn_tf.ops.roi_align import roi_align


def ten_times(upstream, inputs, weights, power):
    return 10.0 * power * upstream * weights


@with_gradient("MrcnnTf>TestPower", ten_times)
def power_of(inputs, weights, power):
    """inputs ** power, with a gradient that is wrong on purpose: 10 * power * weights."""
    return inputs**power


def gradient(inputs, weights):
    with tf.GradientTape() as tape:
        tape.watch([inputs, weights])
        outputs = power_of(inputs, weights, 2)
    return outputs, *tape.gradient(outputs, [inputs, weights])


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)])
def test_the_registered_gradient_counts_in_and_outside_of_graphs(wrap):
    outputs, of_inputs, of_weights = wrap(gradient)(tf.constant([1.0, 3.0]), tf.constant([2.0, 5.0]))
    np.testing.assert_array_equal(outputs, [1, 9])
    np.testing.assert_array_equal(of_inputs, [40, 100])
    assert of_weights is None


def test_a_tape_outside_of_the_function_sees_it_too():
    inputs = tf.constant([1.0, 3.0])
    function = tf.function(lambda values: power_of(values, tf.ones(2), 3) + 1.0)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(inputs)
    np.testing.assert_array_equal(tape.gradient(outputs, inputs), [30, 30])


def test_a_saved_graph_computes_and_says_that_it_has_no_gradient(tmp_path):
    module = tf.Module()
    module.power = tf.function(lambda values: power_of(values, tf.ones(2), 2), input_signature=[tf.TensorSpec([2])])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    inputs = tf.constant([1.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = loaded.power(inputs)
    np.testing.assert_array_equal(outputs, [1, 9])
    with pytest.raises(tf.errors.InvalidArgumentError, match="has no gradient of MrcnnTf>TestPower"):
        tape.gradient(outputs, inputs)


def test_in_a_loop_inside_a_graph():
    @tf.function
    def total(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            parts = tf.map_fn(lambda value: power_of(value, tf.constant(1.0), 2), values)
        return tape.gradient(parts, values)

    np.testing.assert_array_equal(total(tf.constant([1.0, 2.0])), [20, 20])


@pytest.mark.parametrize("implementation", ["gather", "static"])
def test_nothing_is_kept_of_a_graph_that_is_gone(implementation):
    """What tf.custom_gradient keeps for good: an entry in the registry, and the graph."""

    def trace():
        @tf.function
        def step(features):
            with tf.GradientTape() as tape:
                tape.watch(features)
                pooled = roi_align(features, [[0.0, 0, 4, 4]], [0], 1.0, 2, 2, True, implementation)
            return tape.gradient(pooled, features)

        graph = step.get_concrete_function(tf.TensorSpec([1, 8, 8, 1])).graph
        return weakref.ref(graph)

    trace()
    before = len(framework.gradient_registry._registry)
    graph = trace()
    gc.collect()
    assert graph() is None
    assert len(framework.gradient_registry._registry) == before
