"""What is known of an imported model's settings, and from where: facts, and what is merely assumed.

A setting goes by the name of its override, such as "model.pixel_std". What a file may differ in and a model of this package
has no setting for is called "file....": `FILE_SETTINGS`.
"""

import dataclasses
import enum
from typing import Any


class Origin(enum.StrEnum):
    """Where the value of a setting comes from; of two that differ the later one counts, see `Facts.add`."""

    ASSUMPTION = "assumption"  # nothing says so: the default of the library that the file is of
    LIBRARY = "library"  # what that library always does
    PUBLISHED = "published file"  # the file has the name, or the content, of a published one
    AUTHOR = "author"  # the file's `__author__`
    EMBEDDED = "embedded config"  # the training config that stands in the file
    COMPANION = "companion config"  # the training config beside the file, or given
    SHAPE = "shape"  # the tensors' shapes and names
    BUFFER = "buffer"  # a tensor of the file, such as pixel_std
    STATEMENT = "statement"  # the user's


@dataclasses.dataclass(frozen=True)
class Fact:
    """The value of a setting, its origin, and what in particular says so, such as "tensor pixel_std"."""

    value: Any
    origin: Origin
    source: str


@dataclasses.dataclass
class SourceConfig:
    """What a training config of another library says of the model that it is of.

    Attributes:
        name: of the file, or of the place in the file of weights, for messages.
        library: "detectron2" or "mmdetection".
        settings: name of a setting -> value, such as {"model.pixel_std": [1.0, 1.0, 1.0], "file.pixel_order": "BGR"}.
        classes: the names of the K foreground classes; None where it doesn't say them.
    """

    name: str
    library: str
    settings: dict[str, Any]
    classes: list[str] | None = None
