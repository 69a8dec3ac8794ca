"""The declaration of an output."""

import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.results.output_spec import OutputSpec


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": (3,), "coordinates": "points"},
        {"shape": (3, 4), "coordinates": "boxes"},
        {"shape": (4,), "coordinates": "boxes", "per_detection": False},
        {"shape": (4,), "coordinates": "corners"},
    ],
)
def test_coordinates_need_their_shape(arguments):
    with pytest.raises(UserError, match=r"'tip'.*\[P, 3\]"):
        OutputSpec("tip", meaning="of the nose", **arguments)


def test_what_has_no_coordinates_may_have_any_shape():
    assert OutputSpec("tip", (1, 3), "of the nose", coordinates="points").shape == (1, 3)
    assert OutputSpec("angle", (), "degrees").coordinates == ""
