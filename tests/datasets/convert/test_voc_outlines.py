"""Outlines in the xml of objects: supervision's, Roboflow's, and LabelMe's as CVAT and Datumaro write them."""

import numpy as np
import pytest
from convert_samples import kinds, objects, save_image
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.datasets.convert.voc import read_voc
from mrcnn_tf.datasets.convert.voc_outlines import fill_pixels

# OpenCV's fillPoly (4.12) of the points (2, 1), (9, 3), (7, 8), (4, 8), (5, 5), (1, 6).
POINTS = [(2, 1), (9, 3), (7, 8), (4, 8), (5, 5), (1, 6)]
FILLED = """
............
..##........
..######....
..########..
.#########..
.########...
.###.####...
....####....
....####....
............
"""
FILLED = np.array([[pixel == "#" for pixel in line] for line in FILLED.split()])
BOX = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>10</xmax><ymax>9</ymax></bndbox>"


def numbered(points, tag="polygon"):
    text = "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate(points, 1))
    return f"<{tag}>{text}</{tag}>"


def plain(points):
    return f"<polygon>{''.join(f'<pt><x>{x}</x><y>{y}</y></pt>' for x, y in points)}<username/></polygon>"


def save(folder, *elements, place="a.xml", size="<size/>"):
    save_image(folder / "a.jpg", 12, 10)
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"<object><name>cat</name>{element}</object>" for element in elements)
    path.write_text(f"<annotation><filename>a.jpg</filename>{size}{text}</annotation>")
    return folder


def test_pixels_of_an_outline_belong_to_it():
    assert np.array_equal(coco_mask.decode(fill_pixels(np.array(POINTS), 10, 12)).astype(bool), FILLED)
    # Also one that leaves the image, and those that enclose nothing.
    moved = coco_mask.decode(fill_pixels(np.array(POINTS) + [5, -3], 10, 12))
    assert np.array_equal(moved[:7, 5:], FILLED[3:, :7])
    assert np.argwhere(coco_mask.decode(fill_pixels(np.array([(3, 2), (5, 2)]), 10, 12))).tolist() == [
        [2, 3],
        [2, 4],
        [2, 5],
    ]


@pytest.mark.parametrize("tag", ["polygon", "segmentation"])
def test_numbered_points_are_pixels_from_one(tmp_path, tag):
    outline = numbered([(x + 1, y + 1) for x, y in POINTS], tag)
    dataset = read_voc(save(tmp_path, BOX + outline))
    [(name, mask, box)] = objects(dataset.to_coco())["a.jpg"]
    assert name == "cat" and np.array_equal(mask, FILLED) and box == [1, 1, 9, 8]
    assert kinds(dataset) == []


def test_order_is_that_of_the_numbers(tmp_path):
    text = "".join(f"<y{n}>{y + 1}</y{n}><x{n}>{x + 1.0}</x{n}>" for n, (x, y) in reversed([*enumerate(POINTS, 1)]))
    [(_, mask, _)] = objects(read_voc(save(tmp_path, f"<polygon>{text}</polygon>")).to_coco())["a.jpg"]
    assert np.array_equal(mask, FILLED)


def test_several_polygons_are_one_object(tmp_path):
    outlines = numbered([(1, 1), (3, 1), (3, 2), (1, 2)]) + numbered([(6, 5), (8, 5), (8, 8), (6, 8)])
    [(_, mask, _)] = objects(read_voc(save(tmp_path, BOX + outlines)).to_coco())["a.jpg"]
    expected = np.zeros([10, 12], bool)
    expected[0:2, 0:3] = expected[4:8, 5:8] = True
    assert np.array_equal(mask, expected)


def test_zero_based_points_are_places(tmp_path):
    coco = read_voc(save(tmp_path, BOX + numbered([(1, 1), (5, 1), (5, 4.5)])), zero_based=True).to_coco()
    assert coco["annotations"][0]["segmentation"] == [[1, 1, 5, 1, 5, 4.5]]


def test_a_mask_of_pixels_comes_first(tmp_path):
    labels = np.zeros([10, 12], np.uint8)
    labels[3:7, 3:8] = 1
    (tmp_path / "SegmentationObject").mkdir()
    Image.fromarray(labels).save(tmp_path / "SegmentationObject/a.png")
    folder = save(tmp_path, BOX + numbered([(x + 1, y + 1) for x, y in POINTS]))
    [(_, mask, _)] = objects(read_voc(folder).to_coco())["a.jpg"]
    assert np.array_equal(mask, labels == 1)


@pytest.mark.parametrize(
    ("outline", "sentence"),
    [
        ("<polygon><x1>1</x1><y1>2</y1><x2>3</x2></polygon>", "has a <polygon> with an x without its y"),
        ("<polygon><x1>1</x1><y1>?</y1></polygon>", "has a <polygon> with the coordinate '?'"),
        ("<segmentation>1 2 3 4 5 6</segmentation>", "has <segmentation> in a form that isn't read"),
        ("<mask>QmFzZTY0</mask>", "has <mask> in a form that isn't read"),
        ("<segm><mask>gone.png</mask></segm>", "has a mask that can't be used: gone.png isn't in"),
    ],
)
def test_outlines_that_are_not_read_are_noted(tmp_path, outline, sentence):
    dataset = read_voc(save(tmp_path, BOX + outline))
    assert objects(dataset.to_coco())["a.jpg"] == [("cat", None, [1, 1, 9, 8])]
    assert kinds(dataset) == ["unread_outline"]
    assert f"Object 1 of {tmp_path / 'a.xml'} {sentence}" in dataset.problems[0].message


def test_labelme_xml(tmp_path):
    """Points from the corner, rectangles, masks, deleted objects; parts of a class are one object."""
    parts = "<parts><hasparts>{}</hasparts><ispartof>{}</ispartof></parts>"
    picture = np.zeros([10, 12, 4], np.uint8)
    picture[2:5, 4:9] = (255, 203, 0, 153)
    save(
        tmp_path,
        "<id>0</id>" + parts.format("3,4", "") + plain([(1.0, 1.0), (4.5, 1.0), (4.5, 3.25)]),
        "<id>1</id><type>bounding_box</type>" + plain([(2, 3), (7, 3), (7, 8), (2, 8)]),
        "<id>2</id><deleted>1</deleted>" + plain([(2, 3), (7, 3), (7, 8)]),
        "<id>3</id><deleted>0</deleted>" + parts.format("", "0") + plain([(6, 6), (9, 6), (9, 9)]),
        "<id>4</id></object><object><name>ear</name><id>5</id><segm><mask>a_mask_5.png</mask><box/></segm>",
        place="Annotations/sub/a.xml",
        size="<folder>sub</folder><imagesize><nrows>10</nrows><ncols>12</ncols></imagesize>",
    )
    (tmp_path / "Masks/sub").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "Masks/sub/a_mask_5.png")
    dataset = read_voc(tmp_path)
    coco = dataset.to_coco()
    assert [annotation["segmentation"] for annotation in coco["annotations"][:2]] == [
        [[1.0, 1.0, 4.5, 1.0, 4.5, 3.25], [6.0, 6.0, 9.0, 6.0, 9.0, 9.0]],
        [],
    ]
    read = objects(coco)["a.jpg"]
    assert [(name, box) for name, _, box in read[1:]] == [("cat", [2, 3, 5, 5]), ("ear", [4, 2, 5, 3])]
    assert np.array_equal(read[2][1], picture[..., 3] > 0)
    assert kinds(dataset) == ["bad_box", "deleted"]  # object 4 has neither box nor outline


@pytest.mark.parametrize("box_first", [True, False])
def test_a_box_among_labelmes_parts_is_no_second_object(tmp_path, box_first):
    """Datumaro writes a polygon and its box as an object and its part; parts of parts belong to the whole."""
    outlines = ["<type>bounding_box</type>" + plain([(1, 1), (9, 1), (9, 5), (1, 5)]), plain([(1, 1), (9, 1), (9, 5)])]
    first, second = outlines if box_first else reversed(outlines)
    save(
        tmp_path,
        f"<id>0</id><parts><hasparts>1</hasparts></parts>{first}",
        f"<id>1</id><parts><hasparts>2</hasparts><ispartof>0</ispartof></parts>{second}",
        "<id>2</id><parts><ispartof>1</ispartof></parts>" + plain([(6, 6), (9, 6), (9, 9)]),
    )
    dataset = read_voc(tmp_path)
    (annotation,) = dataset.to_coco()["annotations"]
    assert annotation["segmentation"] == [[1, 1, 9, 1, 9, 5], [6, 6, 9, 6, 9, 9]]
    assert kinds(dataset) == ["box_of_group"]
    assert f"Object {1 if box_first else 2} of {tmp_path / 'a.xml'} is a box among" in dataset.problems[0].message
