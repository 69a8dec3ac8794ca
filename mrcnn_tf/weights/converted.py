"""A published checkpoint in this package's terms: what each format module makes of a file."""

import dataclasses
from typing import Any

import numpy as np

from mrcnn_tf.common.categories import Category


@dataclasses.dataclass
class Converted:
    """Weights under this package's names and in Keras's layouts, and what they imply for the config.

    Attributes:
        arrays: weight path without the model's name -> float32 array, mostly a view of the file. Batch norm always
            stands under its convolution (`backbone/stem/gamma`), frozen or not. A dense kernel behind RoI features may
            have its inputs as three axes, [7, 7, C, units].
        changes: weight path -> what was done beside a plain transpose, such as "background first".
        skipped: name in the file -> why the model has no use for it.
        unknown: names in the file that nothing accounts for.
        settings: `ModelConfig` values that the weights imply, nested, such as {"backbone": {"depth": 101}}.
        config: the name of the matching config; None for a bare backbone.
        categories: the K foreground classes; None where the file can't tell.
        stuff: the S stuff classes of a semantic head; None where there is none, or the file can't tell.
    """

    arrays: dict[str, np.ndarray]
    changes: dict[str, str]
    skipped: dict[str, str]
    unknown: list[str]
    settings: dict[str, Any]
    config: str | None
    categories: list[Category] | None
    stuff: list[Category] | None = None
