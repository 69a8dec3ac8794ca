"""What a model gives for a batch of images, output by output: what `Detections`, exports and their clients go by."""

import dataclasses

# What a number of an output may be: nothing that depends on the image's size; boxes (x1, y1, x2, y2) or points (x, y,
# anything) in pixels of the original image.
COORDINATES = ("", "boxes", "points")


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
    """

    name: str
    shape: tuple[int | None, ...]
    meaning: str
    dtype: str = "float32"
    per_detection: bool = True
    coordinates: str = ""
