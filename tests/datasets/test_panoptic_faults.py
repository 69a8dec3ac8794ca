"""What can be wrong with maps, found when a dataset is opened or, in one too large for that, when a map is read."""

import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from panoptic_folder import CAT, DOG, GRASS, SKY, PanopticFolder, labels_of
from PIL import Image

import mrcnn_tf
from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.data.loader import SampleLoader
from mrcnn_tf.data.pipeline import TrainingData
from mrcnn_tf.data.tfrecord_writer import write_records
from mrcnn_tf.datasets.read_coco import load_index


@pytest.fixture
def cats(tmp_path):
    """Two images, 8 and 9."""
    folder = PanopticFolder(tmp_path)
    folder.ids = {number: folder.add(number) for number in (8, 9)}
    return folder


@pytest.fixture
def large(monkeypatch):
    """As if the maps were too many to look at all of their pixels at once."""
    monkeypatch.setattr("mrcnn_tf.datasets.map_files.FULL_CHECK_BYTES", 0)


def save(cats, kind, pixels, name="9.png"):
    Image.fromarray(pixels).save(cats.path / kind / name)


def no_map(cats, kind):
    (cats.path / kind / "9.png").unlink()


def cut(cats, kind):
    path = cats.path / kind / "9.png"
    path.write_bytes(path.read_bytes()[:-20])


def text(cats, kind):
    (cats.path / kind / "9.png").write_text("not an image")


def jpeg(cats, kind):
    Image.new("RGB", (40, 30)).save(cats.path / kind / "9.png", "JPEG")


def tiff(cats, kind):
    Image.new("RGB" if kind == "maps" else "L", (40, 30)).save(cats.path / kind / "9.png", "TIFF")


def other_size(cats, kind):
    save(cats, kind, np.zeros((30, 41, 3) if kind == "maps" else (30, 41), np.uint8))


def other_channels(cats, kind):
    save(cats, kind, np.zeros((30, 40) if kind == "maps" else (30, 40, 3), np.uint8))


def deep(cats, kind):
    """16 bits to a channel, which Pillow reads as 8 and doesn't write."""

    def chunk(name, content):
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    rows = b"".join(b"\0" + bytes(40 * 6) for _ in range(30))
    head = struct.pack(">IIBBBBB", 40, 30, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)
    (cats.path / kind / "9.png").write_bytes(data)


FILES = [
    (no_map, "missing_map", "that isn't there and was skipped: put it into the folder"),
    (cut, "truncated_map", "that is cut off or damaged and was skipped: copy or download the file again"),
    (text, "unreadable_map", "that isn't a readable image and was skipped: replace the file"),
    (jpeg, "map_format", "that is a JPEG of mode RGB and was skipped: save (segment|category) ids as a PNG of "),
    (tiff, "map_format", "that is a TIFF of mode (RGB|L) and was skipped: save (segment|category) ids as a PNG of "),
    (other_size, "map_size", "that is 41 x 30 pixels and not 40 x 30 like the image and was skipped: save it at"),
    (other_channels, "map_format", "that is a PNG of mode (L|RGB) and was skipped: save"),
]


@pytest.mark.parametrize("kind", ["maps", "labels"])
@pytest.mark.parametrize(("spoil", "problem", "words"), FILES, ids=[one[0].__name__ for one in FILES])
def test_an_image_whose_map_cant_be_used_is_skipped(cats, spoil, problem, words, kind):
    spoil(cats, kind)
    index = load_index(cats.config() if kind == "maps" else cats.label_config())
    assert index.image_ids.tolist() == ([8] if kind == "maps" else [1])
    assert index.annotation_ids.tolist() == ([CAT, DOG] if kind == "maps" else [])
    assert index.map_files.tolist() == [str(cats.path / kind / "8.png").encode()]
    (found,) = [one for one in index.problems if one.kind != "skipped_image"]
    assert found.kind == problem and found.record == (9 if kind == "maps" else 2)
    name = f"Image {found.record} in {cats.path}/{'p.json' if kind == 'maps' else 'labels'}"
    assert re.fullmatch(f"{name} has a map, {cats.path}/{kind}/9.png, {words}.*", found.message)


def test_colours_of_16_bits(cats):
    deep(cats, "maps")
    index = load_index(cats.config())
    assert "is a PNG of mode RGB of 16 bits and was skipped: save segment ids" in index.problems[0].message


def test_no_image_has_a_usable_map(cats):
    text(cats, "maps")
    (cats.path / "maps" / "8.png").unlink()
    with pytest.raises(UserError, match=r"No image of .*p.json can be used, the first because: Image 8 in .* isn't th"):
        load_index(cats.config())


def test_an_image_without_an_annotation_is_skipped(cats):
    del cats.annotations[1]
    index = load_index(cats.config())
    assert index.image_ids.tolist() == [8]
    assert [problem.message for problem in index.problems] == [
        f"Image 9 in {cats.path}/p.json has no annotation with a map and was skipped: add it or remove the image."
    ]


def test_an_annotation_without_an_image_is_told(cats):
    del cats.images[1]
    index = load_index(cats.config())
    assert index.image_ids.tolist() == [8]
    assert [problem.message for problem in index.problems] == [
        f"The annotation of image 9 in {cats.path}/p.json belongs to no image and was skipped: correct image_id or add "
        "the image."
    ]


def test_a_semantic_head_needs_stuff(cats):
    cats.categories[:] = [one for one in cats.categories if one["isthing"]]
    with pytest.raises(UserError, match=r"p.json has no category with isthing 0, .* stuff: add such categories, or tr"):
        load_index(cats.config(semantic=True))
    assert load_index(cats.config(semantic=False)).image_ids.tolist() == [8, 9]
    assert load_index(cats.config(semantic=True, stuff=[Category(7, "grass")])).image_ids.tolist() == [8, 9]


def test_a_panoptic_json_in_the_place_of_one_of_instances(cats, tmp_path):
    path = cats.config().panoptic
    with pytest.raises(UserError, match=r"p.json is a panoptic json, and TFRecords hold instances .*: train on it as"):
        write_records(path, cats.path / "images", tmp_path / "records", progress=False)
    assert not (tmp_path / "records").exists()
    index = load_index(cats.config(panoptic="", panoptic_maps="", annotations=path))
    assert {problem.message for problem in index.problems} == {
        f"Annotation None in {path} is one of COCO's panoptic format and was skipped: name the file as data.*.panoptic."
    }


def test_maps_of_the_installed_package():
    names = ("panoptic", "panoptic_maps", "semantic_maps")
    settings = load_config("panoptic_r50_fpn", [f"data.val.{name}=package:nuclei/{name}" for name in names])
    folder = pathlib.Path(mrcnn_tf.__file__).parent / "datasets" / "nuclei"
    assert [getattr(settings.data.val, name) for name in names] == [str(folder / name) for name in names]


def test_segments_that_the_json_lacks_are_ignored(cats):
    ids = cats.ids[9].copy()
    ids[20:22, 30:35], ids[0, 0] = 77, 3 << 16
    cats.write_map(9, ids)
    settings = cats.config()
    index = load_index(settings)
    assert [problem.message for problem in index.problems] == [
        f"The map {cats.path}/maps/9.png has the colour (77, 0, 0), segment 77, and another which the json doesn't "
        f"list ({cats.path}/p.json), and 11 pixels are ignored: list it in segments_info or make its pixels black."
    ]
    assert index.problems[0].kind == "unknown_segment" and index.problems[0].record == "9/77"
    loader = SampleLoader(index, settings)
    np.testing.assert_array_equal(loader.load(0).semantic, labels_of(cats.ids[8]))
    np.testing.assert_array_equal(loader.load(1).semantic, np.where(ids != cats.ids[9], 255, labels_of(cats.ids[9])))
    assert loader.find_fault(0) is None and loader.find_fault(1) is None


def test_a_map_with_red_and_blue_exchanged(cats):
    """What OpenCV writes of an array in RGB; all of its segments lose their pixels."""
    ids = cats.ids[9]
    cats.write_map(9, (ids & 255) << 16 | ids & 0xFF00 | ids >> 16)
    settings = cats.config()
    index = load_index(settings)
    assert [problem.message for problem in index.problems] == [
        f"The map {cats.path}/maps/9.png has red and blue exchanged ({cats.path}/p.json) and its segments were "
        "skipped: save it as RGB, not BGR."
    ]
    assert index.annotation_ids.tolist() == [CAT, DOG]
    # Grass has no red and no blue.
    semantic = SampleLoader(index, settings).load(1).semantic
    np.testing.assert_array_equal(semantic, np.where(ids == GRASS, 1, 255))


def test_segments_that_the_map_lacks_are_skipped(cats):
    ids = cats.ids[9].copy()
    ids[np.isin(ids, (CAT, GRASS))] = SKY
    cats.write_map(9, ids)
    settings = cats.config()
    index = load_index(settings)
    assert [problem.message for problem in index.problems] == [
        f"Segment {number} of image 9 in {cats.path}/p.json has no pixel in {cats.path}/maps/9.png and was skipped: "
        "remove it, or correct its id or the map."
        for number in (CAT, GRASS)
    ]
    assert {problem.kind for problem in index.problems} == {"empty_segment"}
    assert index.annotation_ids.tolist() == [CAT, DOG, DOG]
    sample = SampleLoader(index, settings).load(1)
    assert sample.classes.numpy().tolist() == [1]
    np.testing.assert_array_equal(sample.semantic, labels_of(ids))


@pytest.mark.parametrize("few", [True, False])
def test_what_a_segment_does_not_say_comes_from_its_pixels(cats, few, request):
    if not few:
        request.getfixturevalue("large")
    segments = cats.annotations[1]["segments_info"]
    sound = load_index(cats.config())
    del segments[1]["bbox"], segments[1]["area"], segments[3]["area"]
    segments[3]["bbox"][0] -= 1  # what is there stays
    index = load_index(cats.config())
    assert [problem.kind for problem in index.problems] == ["missing_bbox", "missing_area"]
    assert index.problems[0].message == (
        f"Segment {CAT} of image 9 in {cats.path}/p.json has no bbox, its pixels' was taken: add the bbox."
    )
    assert index.boxes[2].tolist() == sound.boxes[2].tolist() and index.boxes[3].tolist() == [23, 2, 27, 9]
    assert index.areas.tolist() == sound.areas.tolist()


def test_a_value_that_is_no_category_s(cats):
    values = np.array(Image.open(cats.path / "labels" / "9.png"))
    values[3, 4], values[9, 9] = 91, 12
    cats.write_labels(9, values)
    words = (
        rf"The map {cats.path}/labels/9.png has pixels of the value 12, 91, which is the id of no category: add the "
        "class to model.stuff or model.categories, or make such pixels 255."
    )
    with pytest.raises(UserError, match=words):
        load_index(cats.label_config())
    known = [Category(12, "tree"), *cats.label_config().stuff, Category(91, "wall")]
    assert not load_index(cats.label_config(stuff=known)).problems


def test_label_maps_need_names(cats):
    with pytest.raises(UserError, match=r"Nothing names the classes of the label maps in .*labels: list them in model"):
        load_index(cats.label_config(stuff=[]))


def test_classes_that_are_used_twice_or_too_many(cats):
    twice = [Category(3, "carpet")]
    for settings in (cats.config(stuff=twice), cats.label_config(stuff=twice)):
        with pytest.raises(UserError, match=r"Category 3 \('carpet'\) is used twice in model.categories and model.st"):
            load_index(settings)
    many = [Category(number, str(number)) for number in range(100, 355)]
    with pytest.raises(UserError, match="There are 255 classes in model.stuff: leave at most 254"):
        load_index(cats.label_config(stuff=many))


def test_jsons_that_are_not_panoptic_ones(cats):
    for annotation in cats.annotations:
        del annotation["segments_info"]
    with pytest.raises(UserError, match=r"No image of .*p.json can be used, .* 8 .* has no segments_info and was skip"):
        load_index(cats.config())
    del cats.categories[1]["isthing"]
    with pytest.raises(UserError, match=r"Category 3 \('cat'\) in .*p.json has no isthing of 0 or 1: add it"):
        load_index(cats.config())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"panoptic": "nowhere.json"}, r"no file 'nowhere.json': set data.\*.panoptic to a COCO panoptic json"),
        ({"panoptic_maps": "nowhere"}, r"no folder 'nowhere': set data.\*.panoptic_maps to the PNGs of .*p.json"),
        ({"panoptic_maps": ""}, r"no folder '': set data.\*.panoptic_maps"),
        ({"images": "nowhere"}, r"no folder 'nowhere': set data.\*.images to the images of .*p.json"),
        ({"panoptic": "", "semantic_maps": "nowhere"}, r"no folder 'nowhere': set data.\*.semantic_maps"),
        ({"panoptic": ""}, r"no file '': set data.\*.annotations"),
        ({"panoptic_maps": "maps.7z"}, r"maps.7z is a 7z archive: unpack it and give the folder of PNGs in it"),
        ({"panoptic": "maps.7z"}, r"maps.7z is a 7z archive: unpack it and give the json in it as data.\*.panoptic"),
    ],
    ids=range(8),
)
def test_paths_that_lead_nowhere(cats, changes, words, monkeypatch):
    monkeypatch.chdir(cats.path)
    (cats.path / "maps.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    settings = cats.config()
    for name, value in changes.items():
        setattr(settings, name, value)
    with pytest.raises(UserError, match=words):
        load_index(settings)


def test_a_large_set_reads_no_pixels_before_it_must(cats, large, monkeypatch):
    monkeypatch.setattr("mrcnn_tf.datasets.map_files.read_segment_map", None)
    monkeypatch.setattr("mrcnn_tf.datasets.map_files.read_label_map", None)
    assert load_index(cats.config()).image_ids.size == load_index(cats.label_config()).image_ids.size == 2


def unlisted(cats, kind):
    ids = cats.ids[9].copy()
    ids[20:22, 30:35] = 77
    cats.write_map(9, ids)


def lacking(cats, kind):
    cats.write_map(9, np.where(cats.ids[9] == CAT, SKY, cats.ids[9]))


def strange_value(cats, kind):
    values = np.array(Image.open(cats.path / "labels" / "9.png"))
    values[3, 4] = 91
    cats.write_labels(9, values)


LISTED = "has the colour (77, 0, 0), segment 77, which the json doesn't list: list it in segments_info or make its "
OTHER_SIZE = "is 41 x 30 pixels and its image 40 x 30: save it at the image's width and height"
LATE = [
    ("maps", unlisted, f"{LISTED}pixels black", "has pixels of segments that the json does not list, with the ids"),
    ("maps", lacking, f"has no pixel of segment {CAT}: take it out of the json", "has no pixel of the segments with"),
    ("maps", other_size, OTHER_SIZE, "is not of the size"),
    ("maps", no_map, "isn't there any more: put it back as it was", "No such file"),
    (
        "maps",
        cut,
        "can't be read any more, as it is cut off, damaged or out of reach: put it",
        "is cut off or isn't a P",
    ),
    ("maps", deep, "is a PNG of mode RGB of 16 bits: save it as a PNG of 8 bit RGB", "has no pixel of the segments"),
    (
        "labels",
        cut,
        "can't be read any more, as it is cut off, damaged or out of reach: put it",
        "is cut off or isn't a",
    ),
    ("labels", strange_value, "has pixels of the value 91, which is the id of no category: add the", "no category has"),
    ("labels", other_size, OTHER_SIZE, "is not of the size"),
]


@pytest.mark.parametrize(("kind", "spoil", "words", "raw"), LATE, ids=[f"{one[0]}-{one[1].__name__}" for one in LATE])
def test_what_shows_only_when_a_map_is_read_is_named(cats, large, kind, spoil, words, raw):
    """In training by a sentence with the remedy; elsewhere by TensorFlow's own error."""
    settings = cats.config(images_per_batch=2) if kind == "maps" else cats.label_config(images_per_batch=2)
    data, loader = TrainingData(settings), SampleLoader(load_index(settings), settings)
    spoil(cats, kind)
    with pytest.raises(tf.errors.OpError) as raised:
        next(iter(data.stream()))
    error = data.input_error(raised.value)
    assert isinstance(error, UserError) and str(error).startswith(f"The map {cats.path}/{kind}/9.png {words}")
    assert str(error).endswith(" and go on with --resume.")
    with pytest.raises(tf.errors.OpError, match=raw) as raised:
        loader.load(1)
    assert f"{cats.path}/{kind}/9.png" in str(raised.value)
