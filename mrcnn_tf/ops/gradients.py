"""Gradients that are registered once by name, for our own operations and for functions of stock operations.

`tf.custom_gradient` registers a new gradient at every call inside a graph, for good: TensorFlow then keeps the closure,
and with its tensors the whole graph, after the model is gone (180 MB for each small model that was traced). The
gradients here are registered when their module is imported and take what they need from their operation's inputs.
"""

import contextlib
import functools

import tensorflow as tf


def register_gradient(operation):
    """A decorator like `tf.RegisterGradient`, but a module may be imported again, as notebooks do: the first stays."""

    def register(function):
        with contextlib.suppress(KeyError):
            tf.RegisterGradient(operation)(function)
        return function

    return register


def with_gradient(name, backward):
    """A decorator that gives a function of tensors the gradient `backward` with respect to its first argument.

    Args:
        name: to register the gradient by, such as "MrcnnTf>StaticRoIAlign".
        backward: function (upstream, *tensors, *settings) -> gradient of the first of the tensors.

    Returns:
        A decorator of a function (*tensors, *settings) -> tensor, where settings are Python integers, as many as there
        are in each call. The other tensors get no gradient, and the function's own operations are not differentiated.
    """

    @register_gradient(name)
    def gradient(operation, upstream, *unused):
        if operation is None:  # asked for by tf.saved_model.save, which keeps gradients apart from their operations
            message = f"A saved graph has no gradient of {name}: train the model that it was saved from."
            with tf.control_dependencies([tf.debugging.Assert(False, [message])]):
                return [None, tf.zeros_like(unused[0]), *[None] * (len(unused) - 1)]
        _, *tensors, settings = operation.inputs
        return [None, backward(upstream, *tensors, *_as_integers(settings)), *[None] * len(tensors)]

    def decorate(function):
        @functools.wraps(function)
        def differentiable(*arguments):
            tensors = [argument for argument in arguments if not isinstance(argument, int)]
            settings = [argument for argument in arguments if isinstance(argument, int)]
            if tf.executing_eagerly():
                return _differentiate_eagerly(function, backward, tensors, settings)

            def forward(*tensors):
                outputs = function(*tensors, *settings)
                with tf.compat.v1.get_default_graph().gradient_override_map({"IdentityN": name}):
                    return tf.identity_n([outputs, *tensors, tf.constant(settings, tf.int32)])[0]

            # A gradient tape in this same graph would not see the override; of a function's call it asks the function.
            return tf.function(forward, autograph=False)(*tensors)

        return differentiable

    return decorate


def _as_integers(settings):
    return [int(value) for value in tf.get_static_value(settings)]


def _differentiate_eagerly(function, backward, tensors, settings):
    """Outside a graph `tf.custom_gradient` registers nothing: the gradient goes with the tape."""

    @tf.custom_gradient
    def forward(*tensors):
        others = [None] * (len(tensors) - 1)
        return function(*tensors, *settings), lambda upstream: (backward(upstream, *tensors, *settings), *others)

    return forward(*tensors)
