"""Exports of one tiny model, made once for all tests of this folder."""

import functools

import pytest
from tiny import tiny_config

from mrcnn_tf import MaskRCNN


@pytest.fixture(scope="session")
def tiny_model():
    """A `MaskRCNN` for images of 64 pixels. Not to be changed."""
    return MaskRCNN(tiny_config())


@pytest.fixture(scope="session")
def tiny_export(tiny_model, tmp_path_factory):
    """A function from "roi" or "rle" to the SavedModel's folder of `tiny_model` with such masks. Not to be changed."""
    from mrcnn_tf.serving.saved_model_export import export_saved_model

    @functools.cache
    def export(masks):
        folder = tmp_path_factory.mktemp(masks) / "1"
        export_saved_model(tiny_model, folder, masks=masks)
        return folder

    return export
