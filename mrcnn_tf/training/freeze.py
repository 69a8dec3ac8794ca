"""Weights that a run leaves as they are, by name."""

import fnmatch

from mrcnn_tf.common.errors import UserError


def freeze(model, patterns):
    """Takes the weights whose path matches one of the patterns out of training.

    Args:
        model: not compiled yet.
        patterns: such as "backbone/*" or "*/bias", as a shell matches file names; paths are those inside the model.

    Raises:
        UserError: a pattern matches no weight that is trained.
    """
    weights = {weight.path.split("/", 1)[1]: weight for weight in model.trainable_weights}
    for pattern in patterns:
        matching = fnmatch.filter(weights, pattern)
        if not matching:
            parts = ", ".join(dict.fromkeys(path.split("/")[0] for path in weights))
            raise UserError(
                f"train.freeze has {pattern!r}, which matches no trained weight: those of {parts} there are."
            )
        for path in matching:
            weights[path].trainable = False
