"""Everything that a model in training holds, as arrays, and back."""

import collections

from mrcnn_tf.errors import UserError


def snapshot(model):
    """Copies of a compiled model's state: {name: numpy array}.

    That is weights, optimizer (with loss scale and averages), seeds of random layers, and the sums behind the losses of
    the epoch; not the clocks. Names follow from what a variable is for, so they are the same in another process. Under
    a strategy, call it outside of `strategy.run`; mirrored variables come once.
    """
    return {name: variable.value.numpy() for name, variable in _variables(model).items()}


def restore(model, arrays, source="The checkpoint"):
    """Sets the state of a compiled model to that of `snapshot`.

    Args:
        model: of the same config.
        arrays: from `snapshot`.
        source: names them in complaints.

    Raises:
        UserError: names, shapes or dtypes differ; the model is as before.
    """
    variables = _variables(model)
    problem = _first_difference(variables, arrays)
    if problem:
        raise UserError(f"{source} {problem}: resume with the config that it was made with, or train in a new folder.")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _first_difference(variables, arrays):
    for name, variable in variables.items():
        if name not in arrays:
            return f"has no {name}, which the model has"
        array = arrays[name]
        if tuple(array.shape) != tuple(variable.shape):
            return f"has {name} of shape {list(array.shape)} and the model's is {list(variable.shape)}"
        if array.dtype.name != variable.dtype:
            return f"has {name} as {array.dtype.name} and the model's is {variable.dtype}"
    extra = next((name for name in arrays if name not in variables), None)
    return extra and f"has {extra}, which the model lacks"


def _variables(model):
    """Keras variables by the names that they have in a checkpoint.

    Keras numbers the names of models and optimizers by how many a process has made, so these are left out.
    """
    optimizer, trackers = model.optimizer, model.loss_trackers
    if not optimizer.built:
        with model.distribute_strategy.scope():
            optimizer.build(model.trainable_variables)
    named = [(f"model/{_below(model, variable)}", variable) for variable in model.weights]
    for index, variable in enumerate(optimizer.variables):
        slot = variable.path.split("/", 1)[1].removeprefix(f"{model.name}_")
        named.append((f"optimizer/{index:04d}_{slot}", variable))
    for name, tracker in trackers.items():
        named += [(f"losses/{name}/{variable.name}", variable) for variable in tracker.variables]
    known = {id(variable) for _, variable in named}
    named += [(f"state/{_below(model, v)}", v) for v in model.non_trainable_variables if id(v) not in known]
    repeated = [name for name, count in collections.Counter(name for name, _ in named).items() if count > 1]
    if repeated:
        raise ValueError(f"Two variables would be {repeated[0]} in a checkpoint.")
    return dict(named)


def _below(model, variable):
    """The variable's path inside the model."""
    return variable.path.removeprefix(f"{model.name}/")
