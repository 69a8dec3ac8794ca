"""Masks of training beside pycocotools', on a made-up set that one pixel matters to."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.crops import cell_occupancy, compare_crops
from mrcnn_tf.common.errors import UserError

WIDTH, HEIGHT = 200, 160
RINGS = {  # larger and smaller than the crop's cells, one cut off by the image's edge
    1: [20, 10, 170, 30, 140, 150, 30, 120],
    2: [60.5, 40.25, 92.75, 44, 80, 75.5],
    3: [150, 100, 230, 100, 230, 190, 150, 190],
}


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "a.png")

    def write(ring_of=list, **fields):
        annotations = []
        for number, ring in RINGS.items():
            corners = np.reshape(ring, (-1, 2))
            low, high = corners.min(axis=0), np.minimum(corners.max(axis=0), (WIDTH, HEIGHT))
            record = {"id": number, "image_id": 1, "category_id": 1, "bbox": [*low.tolist(), *(high - low).tolist()]}
            annotations.append(record | {"segmentation": ring_of([ring]), "iscrowd": 0, "area": 1.0} | fields)
        image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
        content = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
        (tmp_path / "a.json").write_text(json.dumps(content))
        return str(tmp_path / "a.json"), str(tmp_path / "images")

    return write


def test_the_share_of_each_cell_by_hand():
    mask = np.array([[0, 1, 1], [0, 1, 0]])
    assert cell_occupancy(mask, (0, 0, 3, 2), 1).tolist() == [[0.5]]
    assert cell_occupancy(mask, (1, 0, 3, 2), 2).tolist() == [[1, 1], [1, 0]]
    assert cell_occupancy(mask, (0.5, 0, 1.5, 1), 2).tolist() == [[0, 1], [0, 1]]
    np.testing.assert_allclose(cell_occupancy(mask, (0.5, 0.5, 2.5, 1.5), 1), [[0.625]])


def test_crops_are_pycocotools_masks_and_a_pixel_would_show(dataset, monkeypatch):
    path, images = dataset()
    figures = compare_crops(path, images).to_json()
    assert figures["reference"] == path and (figures["objects"], figures["unmatched"], figures["crowds"]) == (3, 0, 0)
    assert figures["mean"] > 0.99 and figures["min"] > 0.98
    ann_to_mask = COCO.annToMask
    monkeypatch.setattr(COCO, "annToMask", lambda coco, record: np.roll(ann_to_mask(coco, record), 1, axis=1))
    assert compare_crops(path, images).to_json()["mean"] < 0.98


def test_where_pycocotools_cant_read_the_form_the_mended_copy_is_taken(dataset):
    path, images = dataset(ring_of=lambda rings: rings[0], image_id="1")
    figures = compare_crops(path, images).to_json()
    assert figures["reference"] == f"{path}, mended by validate --fix"
    assert figures["objects"] == 3 and figures["mean"] > 0.99


def test_the_command_prints_the_figures(dataset):
    path, images = dataset()
    result = CliRunner().invoke(app, ["crops", path, images, "--limit", "1"])
    assert result.exit_code == 0 and "3 objects, 0 crowds aside: mean IoU 0.99" in result.stdout
    result = CliRunner().invoke(app, ["crops", path, images, "--json"])
    assert json.loads(result.stdout)["objects"] == 3


def test_crowds_alone_leave_nothing_to_compare(dataset):
    with pytest.raises(UserError, match="no object with a mask"):
        compare_crops(*dataset(iscrowd=1))
