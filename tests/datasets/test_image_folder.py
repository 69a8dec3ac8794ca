"""Names of images that aren't those of files."""

import pytest

from mrcnn_tf.datasets.image_folder import ImageFolder


@pytest.mark.parametrize(
    ("file", "name"),
    [
        # cityscapesScripts' createPanopticImgs, and panopticapi's converter.
        ("train/aachen/aachen_000000_000019_leftImg8bit.png", "aachen_000000_000019_gtFine_leftImg8bit.png"),
        ("train/aachen/aachen_000000_000019_leftImg8bit.png", "aachen_000000_000019_leftImg8bit.png"),
        ("000000000009.jpg", "COCO_train2014_000000000009.jpg"),
    ],
)
def test_scripts_put_something_into_names(tmp_path, file, name):
    for path in (tmp_path / file, tmp_path / "a_gtFine_b.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert ImageFolder(tmp_path).find(name) == tmp_path / file
    assert ImageFolder(tmp_path).find("a_b.png") is None
