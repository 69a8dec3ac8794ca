"""The exported model has the trained one's weights and the export's choices."""

import numpy as np
import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.export_setup import fixed_input_size, inference_copy


def test_a_variant_has_the_same_weights_and_nothing_in_common(tiny_model):
    made = inference_copy(tiny_model)
    assert made is not tiny_model and made.settings == tiny_model.settings
    assert all(one is not other for one, other in zip(made.heads, tiny_model.heads, strict=True))
    assert made.dtype_policy.name == tiny_model.dtype_policy.name == "float32"
    for own, other in zip(made.get_weights(), tiny_model.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)
    before = tiny_model.weights[0].numpy()
    made.weights[0].assign_add(np.ones_like(before))
    np.testing.assert_array_equal(tiny_model.weights[0], before)


def test_choices_of_the_export_are_the_variants_only(tiny_model):
    before = tiny_model.settings.detections.max_per_image, tiny_model.settings.detections.score_threshold
    made = inference_copy(tiny_model, "bfloat16", max_detections=1, score_threshold=0.0)
    assert made.dtype_policy.name == "mixed_bfloat16"
    found = made.detect(np.zeros((40, 64, 3), np.uint8))
    assert len(found) == 1  # of ten
    after = tiny_model.settings.detections
    assert (after.max_per_image, after.score_threshold) == before == (10, 0.01)
    assert inference_copy(made, "float32").dtype_policy.name == "float32"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "int8"}, "There is no precision 'int8': choose float32, "),
        ({"max_detections": 0}, "0 detections an image finds nothing: give 1 or more"),
        ({"score_threshold": 1.0}, "1.0 isn't in 0..1"),
        ({"score_threshold": -0.1}, "-0.1 isn't in 0..1"),
        ({"score_threshold": float("nan")}, "nan isn't in 0..1"),
    ],
)
def test_choices_that_are_refused(tiny_model, options, sentence):
    with pytest.raises(UserError, match=sentence):
        inference_copy(tiny_model, **options)


def test_the_default_canvas_is_what_the_resize_rule_makes_at_most(tiny_model):
    assert fixed_input_size(tiny_model, None) == (64, 128)
    made = inference_copy(tiny_model)
    made.resize.min_size, made.resize.max_size = 800, 1333
    assert fixed_input_size(made, None) == (800, 1344)


def test_a_side_or_two_make_a_canvas(tiny_model):
    assert fixed_input_size(tiny_model, 96) == (96, 96)
    assert fixed_input_size(tiny_model, (64, 96)) == fixed_input_size(tiny_model, [64, 96]) == (64, 96)
    for wrong in (50, 0, -32, (64, 50), (0, 64)):
        with pytest.raises(UserError, match="doesn't fit the model: give multiples of 32"):
            fixed_input_size(tiny_model, wrong)
