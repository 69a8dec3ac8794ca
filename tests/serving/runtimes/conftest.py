"""One server for all tests of this folder."""

import shutil

import pytest
from served_stand_in import RUN_LENGTHS, save_other, save_stand_in
from serving_process import serving, stub_command


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
