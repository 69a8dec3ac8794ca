"""What a model gives for a batch of images, output by output: what `Detections`, exports and their clients go by."""

import dataclasses

from mrcnn_tf.common.errors import UserError

# What an output's last side holds, which is then scaled to the original image: boxes (x1, y1, x2, y2), or points (x, y,
# anything) in a list; "" is neither.
COORDINATES = {"": None, "boxes": (4,), "points": (None, 3)}


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """One output of a head: [B, D, *shape] of D detections, or [B, *shape] of an image.

    Attributes:
        name: such as "masks".
        shape: of one detection's, or one image's, part; None for a side that depends on the image.
        meaning: in words, for people who read an export's labels.json.
        dtype: "float32" or "int32".
        per_detection: whether each detection has one.
        coordinates: see `COORDINATES`.

    Raises:
        UserError: coordinates of another kind, or a shape that isn't theirs.
    """

    name: str
    shape: tuple[int | None, ...]
    meaning: str
    dtype: str = "float32"
    per_detection: bool = True
    coordinates: str = ""

    def __post_init__(self):
        expected = COORDINATES.get(self.coordinates, ())
        is_like = expected is None or (
            len(self.shape) == len(expected)
            and all(side in (None, own) for side, own in zip(expected, self.shape, strict=True))
        )
        if not is_like or (self.coordinates and not self.per_detection):
            raise UserError(
                f"The output '{self.name}' has coordinates={self.coordinates!r} and the shape {list(self.shape)}: of "
                "each detection give 'boxes' of shape [4] or 'points' of shape [P, 3], or ''."
            )
