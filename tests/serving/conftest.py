"""Exports of one tiny model, and one server, made once for all tests of this folder."""

import functools
import shutil

import pytest
from served_stand_in import RUN_LENGTHS, save_other, save_stand_in
from serving_process import serving, stub_command
from tiny import tiny_config

from mrcnn_tf import MaskRCNN


@pytest.fixture(scope="session")
def tiny_model():
    """A `MaskRCNN` for images of 64 pixels. Not to be changed."""
    return MaskRCNN.from_settings(tiny_config())


@pytest.fixture(scope="session")
def tiny_export(tiny_model, tmp_path_factory):
    """A function from "roi" or "rle" to the SavedModel's folder of `tiny_model` with such masks. Not to be changed."""
    from mrcnn_tf.serving.saved_model_export import export_saved_model

    @functools.cache
    def export(masks):
        folder = tmp_path_factory.mktemp(masks) / "1"
        export_saved_model(tiny_model, folder, masks=masks, gpu=True)  # without Winograd's transforms it loads sooner
        return folder

    return export


@pytest.fixture(scope="session", params=["stub", "tensorflow_model_server"])
def server(request, tmp_path_factory):
    """A `Server` of "mask_rcnn", the stand-in of `served_stand_in`; "rle", the same with masks in run lengths; and
    "other", which is no detector."""
    pytest.importorskip("tensorflow_serving.apis")
    program = stub_command()
    if request.param != "stub":
        found = shutil.which(request.param)
        if not found:
            pytest.skip(f"There is no {request.param} here.")
        program = [found]
    folder = tmp_path_factory.mktemp(request.param)
    save_stand_in(folder / "mask_rcnn")
    save_stand_in(folder / "rle", RUN_LENGTHS)
    save_other(folder / "other")
    with serving(program, {name: folder / name for name in ("mask_rcnn", "rle", "other")}, folder) as running:
        yield running
