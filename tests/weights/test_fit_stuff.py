"""Loading panoptic weights into models of other things or other stuff: what is kept by name."""

import numpy as np
import pytest
from tiny_weights import make, values

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import SemanticHeadConfig

CLASSIFIER = "semantic_head/predictor/kernel"
LOGITS = "box_head/class_logits/kernel"


def panoptic(things=("cat", "dog"), stuff=("sky", "sea"), **changes):
    named = [Category(number, name) for number, name in enumerate(stuff, 30)]
    return make(things, stuff=named, semantic_head=SemanticHeadConfig(channels=32), **changes)


@pytest.fixture(scope="module")
def source():
    model, random = panoptic(), np.random.default_rng(3)
    for variable in (*model.box_head.weights, *model.semantic_head.weights):
        variable.assign(random.normal(size=variable.shape))
    return model


def test_other_stuff_is_mapped_by_name(source):
    model = panoptic(stuff=("sand", "sea"))
    report = model.load_pretrained(source, map_classes=True, verbose=False)
    assert report.loaded[CLASSIFIER] == "1 of 2 stuff classes by name, the others new"
    ours, theirs = values(model), values(source)
    np.testing.assert_array_equal(ours[LOGITS], theirs[LOGITS])
    np.testing.assert_array_equal(ours[CLASSIFIER][..., 2], theirs[CLASSIFIER][..., 2])
    assert abs(ours[CLASSIFIER][..., 1]).max() < 0.1


def test_things_are_mapped_where_no_stuff_is_the_same_and_the_other_way_round(source):
    model = panoptic(("yak", "dog"), ("road", "rail"))
    model.load_pretrained(source, map_classes=True, verbose=False)
    np.testing.assert_array_equal(values(model)[LOGITS][:, 2], values(source)[LOGITS][:, 2])
    model = panoptic(("yak", "gnu"), ("sky", "rail"))
    model.load_pretrained(source, map_classes=True, verbose=False)
    np.testing.assert_array_equal(values(model)[CLASSIFIER][..., 1], values(source)[CLASSIFIER][..., 1])


def test_a_semantic_head_alone_asks_for_no_things():
    alone = {"box_head": None, "mask_head": False}
    first, second = panoptic(("cat",), **alone), panoptic(("whale",), ("sea", "sky"), **alone)
    first.semantic_head.predictor.kernel.assign(np.random.default_rng(4).normal(size=(1, 1, 32, 3)))
    second.load_pretrained(first, map_classes=True, verbose=False)
    np.testing.assert_array_equal(values(second)[CLASSIFIER], values(first)[CLASSIFIER][..., [0, 2, 1]])


def test_nothing_in_common_is_refused(source):
    with pytest.raises(UserError, match=r"knows none of the model's classes \(yak, road\) by name"):
        panoptic(("yak",), ("road",)).load_pretrained(source, map_classes=True, verbose=False)
