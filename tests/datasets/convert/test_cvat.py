"""CVAT's xml against shapes worked out by hand."""

import itertools

import numpy as np
import pytest
from convert_samples import kinds, pixels, save_image
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.cvat import read_cvat
from mrcnn_tf.datasets.convert.dataset import ClassNames
from mrcnn_tf.datasets.convert.inputs import recognise_format

# As CVAT 2 writes it: the drawing is escaped, and names the points of a skeleton by their labels.
SVG = (
    '&lt;line x1="1" y1="1" data-type="edge" data-node-from="2" data-node-to="1"&gt;&lt;/line&gt;'
    '&lt;circle r="1" data-type="element node" data-element-id="1" data-node-id="1" data-label-name="nose"&gt;'
    '&lt;/circle&gt;&lt;circle r="1" data-element-id="2" data-node-id="2" data-label-name="tail"&gt;&lt;/circle&gt;'
)
META = f"""<meta><task><id>7</id><mode>annotation</mode><labels>
<label><name>cat</name><color>#fa3253</color><type>any</type><attributes></attributes></label>
<label><name>pose</name><type>skeleton</type><svg>{SVG}</svg></label>
<label><name>nose</name><type>points</type><parent>pose</parent></label>
</labels></task></meta>"""


def save(folder, shapes, images=None, root="annotations"):
    """An annotations.xml with an image a.png of 40 x 30 that has the shapes, or with the given images' elements."""
    if images is None:
        save_image(folder / "images/a.png", 40, 30)
        images = f'<image id="0" name="a.png" width="40" height="30">{shapes}</image>'
    path = folder / "annotations.xml"
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<{root}><version>1.1</version>{META}{images}</{root}>'
    path.write_text(text, encoding="utf-8")
    return path


def skeleton(points, more=""):
    elements = "".join(
        f'<points label="{name}" outside="{outside}" occluded="{occluded}" points="{x},{y}"/>'
        for name, x, y, outside, occluded in points
    )
    return f'<skeleton label="pose" source="manual" z_order="0" {more}>{elements}</skeleton>'


POSE = [("nose", 12.5, 6.25, 0, 0), ("tail", 20, 9, 0, 1)]


def test_polygons_groups_boxes_and_what_has_no_area(tmp_path):
    shapes = """
        <polygon label="cat" source="manual" occluded="1" points="1.00,1.00;5.00,1.00;5.00,4.00" z_order="2">
          <attribute name="label">x</attribute></polygon>
        <polygon label="dog" points="10,2;14,2;14,5" group_id="3"/>
        <polygon label="dog" points="20,2;24,2;24,5" group_id="3"/>
        <polygon label="cat" points="30,2;34,2;34,5" group_id="3"/>
        <box label="cat" xtl="2.5" ytl="3" xbr="10" ybr="9.5" group_id="0"/>
        <box label="dog" xtl="9" ytl="1" xbr="25" ybr="6" group_id="3"/>
        <polyline label="cat" points="1,1;2,2"/><points label="cat" points="1,1"/><cuboid label="cat" xtl1="1"/>
        <tag label="cat"/><polygon label="background" points="1,1;5,1;5,4"/>"""
    save(tmp_path, shapes)
    dataset = read_cvat(tmp_path)
    coco = dataset.to_coco()
    assert coco["images"] == [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    triangle = [[1.0, 1.0, 5.0, 1.0, 5.0, 4.0]]
    pair = [[10.0, 2.0, 14.0, 2.0, 14.0, 5.0], [20.0, 2.0, 24.0, 2.0, 24.0, 5.0]]
    expected = [(1, triangle), (2, pair), (1, [[30.0, 2.0, 34.0, 2.0, 34.0, 5.0]]), (1, [])]
    assert [(entry["category_id"], entry["segmentation"]) for entry in coco["annotations"]] == expected
    assert coco["annotations"][3]["bbox"] == [2.5, 3.0, 7.5, 6.5] and coco["annotations"][3]["iscrowd"] == 0
    assert kinds(dataset)[0] == "background_shape"
    assert kinds(dataset)[1:] == ["box_of_group", "cuboid_shape", "points_shape", "polyline_shape", "tag_shape"]


@pytest.mark.parametrize(("left", "top"), [(0, 0), (7, 3), (34, 25), (-2, -3), (60, 60)])
def test_masks_run_along_the_rows_of_their_box(tmp_path, left, top):
    crop = np.random.default_rng(5).random((8, 11)) > 0.4
    crop[0, 0] = left == 7  # a mask may begin inside: its first run is 0 then
    runs = [len(list(values)) for _, values in itertools.groupby(crop.ravel())]
    runs = [0, *runs] if crop[0, 0] else runs
    rle = ", ".join(map(str, runs))
    box = f'left="{left}" top="{top}" width="11" height="8"'
    save(tmp_path, f'<mask label="cat" rle="{rle}" {box}/><box label="cat" xtl="1" ytl="1" xbr="5" ybr="5"/>')
    dataset = read_cvat(tmp_path)
    coco = dataset.to_coco()
    whole = np.zeros((100, 100), bool)
    whole[20 + top : 28 + top, 20 + left : 31 + left] = crop
    expected = whole[20:50, 20:60]
    if not expected.any():
        assert kinds(dataset) == ["outside"] and len(coco["annotations"]) == 1
        return
    assert np.array_equal(pixels(coco["annotations"][0], coco["images"][0]), expected)
    assert coco["annotations"][0]["area"] == expected.sum() and kinds(dataset) == []


def test_ellipses_and_turned_boxes(tmp_path):
    shapes = """<ellipse label="cat" cx="20" cy="15" rx="12" ry="5" rotation="0"/>
        <ellipse label="cat" cx="20" cy="15" rx="5" ry="12" rotation="90.00"/>
        <box label="cat" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"/>
        <box label="cat" xtl="10" ytl="10" xbr="20" ybr="20" rotation="30"/>"""
    save(tmp_path, shapes)
    coco = read_cvat(tmp_path).to_coco()
    y, x = np.mgrid[:30, :40] + 0.5
    ellipse = ((x - 20) / 12) ** 2 + ((y - 15) / 5) ** 2 <= 1
    masks = [pixels(annotation, coco["images"][0]) for annotation in coco["annotations"]]
    for mask in masks[:2]:
        assert (mask & ellipse).sum() / (mask | ellipse).sum() > 0.96  # pycocotools rounds corners to pixels
    upright = np.zeros((30, 40), bool)
    upright[5:25, 15:25] = True
    assert np.array_equal(masks[2], upright)
    # Clockwise in the picture: the upper left corner goes up and to the right.
    corner = 15 - 5 * np.cos(np.pi / 6) + 5 * np.sin(np.pi / 6), 15 - 5 * np.sin(np.pi / 6) - 5 * np.cos(np.pi / 6)
    np.testing.assert_allclose(coco["annotations"][3]["segmentation"][0][:2], corner, atol=1e-3)


def test_a_skeleton_alone_has_a_box_around_its_points(tmp_path):
    outside = [("nose", 3, 4, 0, 0), ("tail", 99, 99, 1, 0)]
    nothing = [("nose", 3, 4, 1, 0), ("tail", 9, 9, 1, 0)]
    save(tmp_path, skeleton(POSE) + skeleton(outside) + skeleton(nothing))
    dataset = read_cvat(tmp_path)
    coco = dataset.to_coco()
    assert coco["categories"] == [{"id": 1, "name": "pose", "keypoints": ["nose", "tail"], "skeleton": [[2, 1]]}]
    first, second = coco["annotations"]
    assert first["keypoints"] == [12.5, 6.25, 2, 20.0, 9.0, 1] and first["num_keypoints"] == 2
    assert second["keypoints"] == [3.0, 4.0, 2, 0, 0, 0] and second["num_keypoints"] == 1
    assert (first["bbox"], first["segmentation"]) == ([12.5, 6.25, 7.5, 2.75], []) and second["bbox"] == [3, 4, 1, 1]
    assert kinds(dataset) == ["empty_skeleton"]


def test_a_skeleton_belongs_to_the_shape_of_its_group(tmp_path):
    polygon = '<polygon label="cat" points="10,2;30,2;30,15" group_id="{}"/>'
    shapes = polygon.format(1) + skeleton(POSE, 'group_id="1"') + polygon.format(2) + '<tag label="x"/>'
    two = polygon.format(3) + polygon.format(3).replace("cat", "dog") + skeleton(POSE, 'group_id="3"')
    save(tmp_path, shapes + two)
    dataset = read_cvat(tmp_path)
    coco = dataset.to_coco()
    cat, dog, pose = coco["categories"]
    assert cat == {"id": 1, "name": "cat", "keypoints": ["nose", "tail"], "skeleton": [[2, 1]]}
    assert "keypoints" not in dog and pose["keypoints"] == ["nose", "tail"]
    found = [(entry["category_id"], entry.get("num_keypoints")) for entry in coco["annotations"]]
    assert found == [(1, 2), (1, 0), (1, 0), (2, None), (3, 2)]
    assert coco["annotations"][1]["keypoints"] == [0] * 6  # the class has some, this one has none
    assert kinds(dataset) == ["shared_skeleton", "tag_shape"]


@pytest.mark.parametrize(
    "shape",
    [
        '<polygon label="cat" points="1,1;5,x;5,4"/>',
        '<polygon label="cat" points="1,1;5;5,4"/>',
        '<polygon label="cat"/>',
        '<box label="cat" xtl="1" ytl="2" xbr="3"/>',
        '<mask label="cat" rle="3, 4" left="1" top="1" width="2" height="2"/>',
        '<mask label="cat" rle="3, -1, 2" left="1" top="1" width="2" height="2"/>',
        '<mask label="cat" left="1" top="1" width="2" height="2"/>',
        '<ellipse label="cat" cx="1" cy="2" rx="3"/>',
        '<skeleton label="pose"><points label="nose"/></skeleton>',
    ],
)
def test_a_broken_shape_costs_no_other(tmp_path, shape):
    save(tmp_path, shape + '<polygon label="cat" points="1,1;5,1;5,4"/>')
    dataset = read_cvat(tmp_path)
    assert len(dataset.to_coco()["annotations"]) == 1 and kinds(dataset) == ["broken_shape"]
    assert " 1 of image a.png of" in dataset.problems[0].message


def test_images_are_found_or_named(tmp_path):
    polygon = '<polygon label="cat" points="1,1;5,1;5,4"/>'
    images = [("there.png", 40, 30), ("gone.png", 40, 30), ("small.png", 80, 60), ("deep\\b.png", 40, 30)]
    for name in ("there.png", "small.png", "deep/b.png"):
        save_image(tmp_path / "photos" / name, 40, 30)
    texts = [
        f'<image id="{i}" name="{n}" width="{w}" height="{h}">{polygon}</image>' for i, (n, w, h) in enumerate(images)
    ]
    path = save(tmp_path, "", "".join(texts))
    dataset = read_cvat(path, tmp_path / "photos")
    assert [image["file_name"] for image in dataset.to_coco()["images"]] == ["deep/b.png", "there.png"]
    assert kinds(dataset) == ["missing_image", "other_size"]


@pytest.mark.parametrize("size", ["", 'width="0" height="0"', 'width="-1" height="30"', 'width="x" height="30"'])
def test_sizes_that_say_nothing(tmp_path, size):
    save_image(tmp_path / "images/a.png", 40, 30)
    save(tmp_path, "", f'<image name="a.png" {size}><box label="cat" xtl="1" ytl="1" xbr="5" ybr="5"/></image>')
    dataset = read_cvat(tmp_path)
    assert dataset.to_coco()["images"] == [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]
    assert kinds(dataset) == []


def test_subsets_never_end_in_one_json(tmp_path):
    polygon = '<polygon label="cat" points="1,1;5,1;5,4"/>'
    texts = []
    for subset in ("train", "val"):
        save_image(tmp_path / "images" / subset / "a.png", 40, 30)
        texts.append(f'<image id="0" name="a.png" subset="{subset}" width="40" height="30">{polygon}</image>')
    save(tmp_path, "", "".join(texts))
    with pytest.raises(UserError, match="has the splits train, val: convert one at a time by --split train"):
        read_cvat(tmp_path)
    for subset in ("train", "val"):
        (image,) = read_cvat(tmp_path, split=subset).to_coco()["images"]
        assert image["file_name"] == f"{subset}/a.png"
    with pytest.raises(UserError, match="has no split 'test': it has train, val"):
        read_cvat(tmp_path, split="test")


def test_refusals(tmp_path):
    track = (
        '<track id="0" label="cat"><box frame="0" xtl="1" ytl="1" xbr="5" ybr="5" outside="0" keyframe="1"/></track>'
    )
    path = save(tmp_path, "", track)
    with pytest.raises(UserError, match='video, whose tracks aren\'t read: export the task as "CVAT for images 1.1"'):
        read_cvat(path)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(UserError, match="isn't valid xml"):
        read_cvat(save_cut(path))
    save(tmp_path, "", "", root="annotation")
    with pytest.raises(UserError, match="looks like another format: try `mrcnn-tf convert voc"):
        read_cvat(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        read_cvat(tmp_path / "empty")


def save_cut(path):
    path.write_text('<annotations><image id="0" name="a.png">')
    return path


def test_one_xml_of_a_folder(tmp_path):
    """datumaro writes a subset's xml under its name."""
    path = save(tmp_path, '<polygon label="cat" points="1,1;5,1;5,4"/>')
    path.rename(tmp_path / "train.xml")
    assert recognise_format(tmp_path) == recognise_format(tmp_path / "train.xml") == "cvat"
    assert len(read_cvat(tmp_path).to_coco()["annotations"]) == 1
    (tmp_path / "val.xml").write_text((tmp_path / "train.xml").read_text())
    with pytest.raises(UserError, match=r"has several xml files of CVAT \(train.xml, val.xml\): give one, and"):
        read_cvat(tmp_path)
    assert len(read_cvat(tmp_path / "val.xml").to_coco()["annotations"]) == 1


def test_names_fix_classes_and_keypoints(tmp_path):
    save(tmp_path, skeleton(POSE) + '<polygon label="cat" points="1,1;5,1;5,4"/>')
    names = ClassNames([(4, "pose")], keypoints={4: (["tail", "ear"], [[1, 2]])})
    dataset = read_cvat(tmp_path, names=names)
    coco = dataset.to_coco()
    assert coco["categories"] == [{"id": 4, "name": "pose", "keypoints": ["tail", "ear"], "skeleton": [[1, 2]]}]
    assert coco["annotations"][0]["keypoints"] == [20.0, 9.0, 1, 0, 0, 0]
    assert kinds(dataset) == ["unknown_class", "unknown_keypoint"]


def test_many_images_take_little_memory(tmp_path):
    """Each image's element goes when it has been read: 30 MB of xml would take 300 MB."""
    import tracemalloc

    rle = ",".join(["1"] * 1200)
    mask = f'<mask label="cat" rle="{rle}" left="0" top="0" width="40" height="30"/>'
    save(
        tmp_path,
        "",
        "".join(f'<image id="{i}" name="{i}.png" width="40" height="30">{mask * 40}</image>' for i in range(100)),
    )
    save_image(tmp_path / "images/0.png", 40, 30)
    size = (tmp_path / "annotations.xml").stat().st_size
    tracemalloc.start()
    dataset = read_cvat(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset.to_coco()["annotations"]) == 40 and size > 9e6 and peak < size / 2
    assert coco_mask.area(dataset.to_coco()["annotations"][0]["segmentation"]) == 600
