"""One way to bring about each kind of problem in a sound dataset: {kind: [(how, number of records it says)]}."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from sound_dataset import BOXES, HEIGHT, WIDTH, annotation, outline, picture

NAN, INFINITY = float("nan"), float("inf")
FACE = ["nose", "left_eye", "right_eye"]
POINTS = [6, 8, 2, 9, 8, 1, 0, 0, 0]


def change(number=2, **fields):
    """Changes an annotation, a value of ... removing the key."""

    def spoil(dataset):
        record = dataset.annotations[number - 1]
        record.update(fields)
        for key in [key for key, value in record.items() if value is ...]:
            del record[key]

    return spoil


def change_image(number=2, **fields):
    def spoil(dataset):
        record = dataset.records[number - 1]
        record.update(fields)
        for key in [key for key, value in record.items() if value is ...]:
            del record[key]

    return spoil


def add_category(**record):
    """Adds a category with enough objects not to be rare."""

    def spoil(dataset):
        dataset.categories.append(record)
        if type(record.get("id")) is int and record["id"] != 3:
            for number in range(10):
                x, y, width, height = BOXES[number % 4]
                box = (x + 2 + number // 4, y + 2, width - 6, height - 6)
                new = annotation(100 + number, 1 + number % 3, box, category_id=record["id"])
                dataset.annotations.append(new)

    return spoil


def change_category(**fields):
    return lambda dataset: dataset.categories[0].update(fields)


def faces(number=2, **fields):
    """Gives the category keypoints and every annotation some, then changes one annotation."""

    def spoil(dataset):
        dataset.categories[0]["keypoints"] = FACE
        for record in dataset.annotations:
            record.update(keypoints=list(POINTS), num_keypoints=2)
        change(number, **fields)(dataset)

    return spoil


def every(**functions):
    """Changes fields of all annotations by functions of the record."""

    def spoil(dataset):
        for record in dataset.annotations:
            record.update({name: function(record) for name, function in functions.items()})

    return spoil


def save(name, mode="RGB", number=2, **options):
    return lambda dataset: dataset.save_as(number, name, mode, **options)


def _frames(name):
    frame = Image.new("RGB", (WIDTH, HEIGHT))
    return save(name, save_all=True, append_images=[frame])


def file(content, name=None):
    """Replaces the second image's file by bytes, or by what a function makes of them."""

    def spoil(dataset):
        path = dataset.images / dataset.records[1]["file_name"]
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)

    return spoil


def _rename(dataset):
    path = dataset.images / dataset.records[1]["file_name"]
    (dataset.images / "deeper").mkdir()
    path.rename(dataset.images / "deeper" / path.name.upper())


def _turned(orientation, width, height, box=None):
    """The second image as a JPEG with an EXIF orientation, described as width x height."""

    def spoil(dataset):
        exif = Image.Exif()
        exif[0x0112] = orientation
        dataset.save_as(2, "photo.jpg", exif=exif)
        dataset.records[1].update(width=width, height=height)
        for number, place in zip((5, 6, 7, 8), (box or BOXES), strict=True):
            dataset.annotations[number - 1] = annotation(number, 2, place, note="mine")

    return spoil


UPRIGHT = [(y, x, height, width) for x, y, width, height in BOXES]  # of a picture turned by a quarter
LOW = [(4, 50, 10, 10), (4, 5, 14, 12), (20, 26, 20, 18), (6, 28, 12, 14)]


def _shared(dataset):
    dataset.records.append(dataset.records[1] | {"id": 9})
    dataset.annotations[4]["image_id"] = 9


def _same_picture(dataset):
    name = dataset.records[1]["file_name"]
    shutil.copy(dataset.images / name, dataset.images / "copy.png")
    dataset.records.append(dataset.records[1] | {"id": 9, "file_name": "copy.png"})
    dataset.annotations.append(annotation(90, 9, BOXES[0]))


def _similar_picture(dataset):
    """The second image again: half as large, brighter, as a JPEG."""
    smaller = picture(2).resize((WIDTH // 2, HEIGHT // 2)).point(lambda grey: 0.9 * grey + 20)
    smaller.save(dataset.images / "smaller.jpg", quality=80)
    dataset.records.append({"id": 9, "file_name": "smaller.jpg", "width": WIDTH // 2, "height": HEIGHT // 2})
    dataset.annotations.append(annotation(90, 9, BOXES[0]))


def _crowded(dataset):
    rng = np.random.default_rng(0)
    for number in range(97):
        x, y = rng.integers(0, (50, 36)).tolist()
        box = (x, y, 8 + number % 6, 6 + number // 20)
        dataset.annotations.append(annotation(100 + number, 2, box))


def _deep(dataset):
    grey = np.asarray(picture(2).convert("L"), np.uint16) * 256
    (dataset.images / dataset.records[1]["file_name"]).unlink()
    Image.fromarray(grey).save(dataset.images / "deep.png")
    dataset.records[1]["file_name"] = "deep.png"


def _large(dataset):
    buffer = io.BytesIO()
    Image.new("1", (8000, 6000)).save(buffer, "PNG")
    (dataset.images / dataset.records[1]["file_name"]).write_bytes(buffer.getvalue())
    dataset.records[1].update(width=8000, height=6000)
    for record in dataset.annotations[4:8]:
        box = [100 * number for number in record["bbox"]]
        record.update(bbox=box, area=box[2] * box[3], segmentation=[outline(*box)])


def _unlisted(dataset):
    picture(9).save(dataset.images / "other.jpg")


def _empty(dataset):
    dataset.add_image(4)


def _again(category=3):
    def spoil(dataset):
        dataset.annotations.append(annotation(90, 1, BOXES[0], category_id=category))

    return spoil


def _imbalance(dataset):
    dataset.categories.append({"id": 5, "name": "crowded"})
    for image in (1, 2, 3):
        for number in range(202):
            x, y = divmod(number, 14)
            box = (4.0 * x, 3.2 * y, 3.5, 3.0)
            new = annotation(1000 * image + number, image, box, category_id=5)
            dataset.annotations.append(new)
    for record in dataset.annotations[10:12]:
        record["category_id"] = 3


def _boxes(function):
    return every(bbox=lambda record: function(*record["bbox"]))


def _polygons(function):
    """Changes all points; the boxes stay those of COCO's reading unless changed too."""

    def points(record):
        ring = record["segmentation"][0]
        return [[number for x, y in zip(ring[::2], ring[1::2], strict=True) for number in function(x, y)]]

    return every(segmentation=points)


def _keypoints(function):
    def spoil(dataset):
        faces()(dataset)
        for number, record in enumerate(dataset.annotations):
            x, y = (60, 10) if number % 2 else (6, 8)
            record["keypoints"] = [*function(x, y), 2, *function(9, 8), 1, 0, 0, 0]

    return spoil


BAD_RING = outline(*BOXES[1]), [1.0, 2.0, 3.0]
SQUARE = {
    "size": [HEIGHT, WIDTH],
    "counts": [HEIGHT * 24 + 5, *[20, HEIGHT - 20] * 13, 20, HEIGHT * (WIDTH - 37) - 25],
}  # of the second box
RUNS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 24 + 5, 20, HEIGHT * WIDTH - HEIGHT * 24 - 25]}

SPOILERS = {
    # Images
    "missing_image": [(change_image(file_name="gone.png"), 1)],
    "misnamed_image": [(_rename, 1)],
    "unreadable_image": [(file(b"<html>"), 1), (file(b"version https://git-lfs.github.com/spec/v1"), 1)],
    "truncated_image": [(file(lambda data: data[:-300]), 1)],
    "image_format": [(save("a.tiff", "F"), 1), (file(b"\0\0\0 ftypheic\0\0\0\0"), 1)],
    "image_fields": [(change_image(id=None), 1), (change_image(file_name=...), 1)],
    "duplicate_image": [(change_image(id=1), 1)],
    "image_size": [(change_image(width=60), 1)],
    "missing_size": [
        (change_image(width=..., height=...), 1),
        *((change_image(height=unknown), 1) for unknown in (None, 0, -1, "48", 47.5)),
    ],
    "loose_image": [(change_image(id="2"), 1), (change_image(id=2.0), 1)],
    "exif_mismatch": [(_turned(6, WIDTH, HEIGHT, LOW), 1)],
    "exif_frame": [(_turned(6, WIDTH, HEIGHT), 1)],
    "exif_turned": [(_turned(6, HEIGHT, WIDTH, UPRIGHT), 1), (_turned(3, WIDTH, HEIGHT), 1)],
    "shared_file": [(_shared, 1)],
    "duplicate_picture": [(_same_picture, 1)],
    "similar_picture": [(_similar_picture, 1)],
    "too_many_instances": [(_crowded, 1)],
    "deep_image": [(_deep, 1)],
    "large_image": [(_large, 1)],
    "grey_image": [(save("a.png", "L"), 1)],
    "alpha_image": [(save("a.png", "RGBA"), 1)],
    "cmyk_image": [(save("a.jpg", "CMYK"), 1)],
    "animated_image": [(_frames("a.gif"), 1), (_frames("a.tiff"), 1), (_frames("a.png"), 1)],
    "empty_image": [(_empty, 1)],
    "unlisted_file": [(_unlisted, 1)],
    # Annotations
    "annotation_fields": [
        (change(image_id=...), 1),
        (change(category_id="cell"), 1),
        (lambda d: d.annotations.append("x"), 1),
    ],
    "loose_annotation": [
        (change(id="2"), 1),
        (change(id=...), 1),
        (change(id=2.0, image_id="1", category_id=3.0), 1),
        (change(bbox=[str(number) for number in BOXES[1]], area=[280]), 1),
        (change(segmentation=outline(*BOXES[1])), 1),
        (change(segmentation=[[[24, 5], [38, 5], [38, 25], [24, 25]]]), 1),
        (change(segmentation=[SQUARE]), 1),
        (change(segmentation=SQUARE | {"counts": [float(run) for run in SQUARE["counts"]]}), 1),
    ],
    "duplicate_annotation": [(change(id=1), 1)],
    "skipped_image": [(change_image(file_name="gone.png"), 4)],
    "unknown_image": [(change(image_id=77), 1)],
    "unknown_category": [(change(category_id=77), 1)],
    "bad_box": [(change(bbox=[1, 2, 3]), 1), (change(bbox="all"), 1)],
    "bad_area": [(change(area="large"), 1), (change(area=[1, 2]), 1)],
    "degenerate_box": [(change(bbox=[24, 5, 0, 20]), 1)],
    "outside_box": [(change(bbox=[70, 5, 14, 20]), 1)],
    "clipped_box": [(change(bbox=[60, 5, 14, 20], segmentation=[outline(60, 5, 4, 20)], area=80), 1)],
    "missing_box": [(change(bbox=...), 1)],
    "nan_coordinate": [(change(bbox=[24, NAN, 14, 20]), 1), (change(segmentation=[[1, 2, 3, INFINITY, 5, 6]]), 1)],
    "empty_segmentation": [(change(segmentation=[]), 1), (change(segmentation=...), 1)],
    "bad_polygon": [(change(segmentation=list(BAD_RING)), 1)],
    "bad_rle": [(change(segmentation={"size": [HEIGHT, WIDTH]}), 1)],
    "rle_size": [(change(segmentation=RUNS | {"size": [WIDTH, HEIGHT]}), 1)],
    "outside_mask": [(change(segmentation=[outline(70, 5, 14, 20)]), 1)],
    "flat_mask": [
        (change(segmentation=[[24, 5, 38, 25, 31, 15]]), 1),
        (change(segmentation=[[24, 5, 38, 25, 24, 5, 38, 25]]), 1),
    ],
    "flat_polygon": [(change(segmentation=[outline(*BOXES[1]), [26, 8, 26, 8, 26, 8]]), 1)],
    "overhanging_mask": [(change(bbox=[50, 5, 14, 20], segmentation=[[50, 5, 70, 5, 64, 25, 50, 25]], area=300), 1)],
    "self_crossing": [(change(segmentation=[[24, 5, 38, 25, 38, 5, 24, 25]], area=140), 1)],
    "box_mask": [(change(bbox=[20, 5, 18, 20]), 1)],
    "area_mask": [(change(area=40), 1), (change(segmentation=RUNS, bbox=[24, 5, 1, 20]), 1)],
    "duplicate_object": [(_again(), 1)],
    "conflicting_object": [(lambda d: (add_category(id=9, name="b")(d), _again(9)(d)), 1)],
    "crowd_value": [(change(iscrowd=2), 1), (change(iscrowd="0"), 1)],
    "crowd_polygon": [(change(iscrowd=1), 1)],
    "bad_keypoints": [(faces(keypoints=["a", "b", "c"]), 1)],
    "keypoint_count": [(faces(keypoints=POINTS[:6]), 1)],
    "keypoint_visibility": [(faces(keypoints=[6, 8, 3, *POINTS[3:]]), 1)],
    "outside_keypoint": [(faces(keypoints=[90, 8, 2, *POINTS[3:]]), 1)],
    "missing_keypoints": [(faces(keypoints=..., num_keypoints=...), 1)],
    "keypoint_number": [(faces(num_keypoints=3), 1)],
    "unnamed_keypoints": [(change(keypoints=POINTS), 1)],
    "tiny_object": [
        (change(bbox=[24, 5, 0.9, 0.9], segmentation=[outline(24, 5, 0.9, 0.9)], area=0.81), 1),
    ],
    "elongated_object": [(change(bbox=[2, 25, 60, 2], segmentation=[outline(2, 25, 60, 2)], area=120), 1)],
    # Layouts
    "normalised_polygons": [(_polygons(lambda x, y: (x / WIDTH, y / HEIGHT)), 12)],
    "swapped_polygons": [(_polygons(lambda x, y: (y, x)), 12)],
    "normalised_keypoints": [(_keypoints(lambda x, y: (x / WIDTH, y / HEIGHT)), 12)],
    "swapped_keypoints": [(_keypoints(lambda x, y: (y, x)), 12)],
    "normalised_boxes": [
        (_boxes(lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]), 12),
        (_boxes(lambda x, y, w, h: [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]), 12),
    ],
    "corner_boxes": [(_boxes(lambda x, y, w, h: [x, y, x + w, y + h]), 12)],
    "swapped_boxes": [
        (_boxes(lambda x, y, w, h: [y, x, h, w]), 12),
        (_boxes(lambda x, y, w, h: [y, x, y + h, x + w]), 12),
    ],
    "centre_boxes": [(_boxes(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]), 12)],
    # Categories
    "bad_category": [
        (lambda d: d.categories.append({"id": 9}), 1),
        (change_category(keypoints=[1, 2]), 1),
        (change_category(skeleton=[[1, 2]]), 1),
    ],
    "duplicate_category": [(lambda d: d.categories.append({"id": 3, "name": "b"}), 1)],
    "unnamed_category": [(change_category(name=" "), 1)],
    "repeated_name": [(add_category(id=9, name=" 细胞"), 1)],
    "background_category": [(add_category(id=9, name="Background"), 1)],
    "category_zero": [(add_category(id=0, name="b"), 1)],
    "empty_class": [(lambda d: d.categories.append({"id": 9, "name": "b"}), 1)],
    "rare_class": [(lambda d: d.annotations.__delitem__(slice(None, None, 3)), 1)],
    "class_imbalance": [(_imbalance, 1)],
    # The dataset as a whole
    "no_images": [(lambda d: d.document.update(images=[]), 1)],
    "no_annotations": [(lambda d: d.document.update(annotations=[]), 1)],
    "no_categories": [(lambda d: d.document.update(categories=[]), 1)],
    "all_crowd": [(every(iscrowd=lambda record: 1), 1)],
}
CASES = [
    pytest.param(kind, *case, id=f"{kind}-{number}")
    for kind, cases in SPOILERS.items()
    for number, case in enumerate(cases)
]

# What can't be had alone: spoiling one thing shows in another, too.
ALONG = {
    "missing_image": ["skipped_image", "unlisted_file", "rare_class"],
    "unreadable_image": ["skipped_image", "rare_class"],
    "truncated_image": ["skipped_image", "rare_class"],
    "image_format": ["skipped_image", "rare_class"],
    "image_fields": ["skipped_image", "unknown_image", "unlisted_file", "rare_class"],
    "duplicate_image": ["unknown_image", "rare_class"],
    "image_size": ["skipped_image", "rare_class"],
    "skipped_image": ["missing_image", "unlisted_file", "rare_class"],
    "area_mask": ["elongated_object"],
    "crowd_value": ["crowd_polygon"],
    "deep_image": ["grey_image"],
    "large_image": ["grey_image"],
    "bad_category": ["empty_class"],
    "all_crowd": ["crowd_polygon", "empty_class"],
    "no_images": ["unknown_image", "unlisted_file", "empty_class"],
    "no_annotations": ["empty_image", "empty_class"],
    "no_categories": ["unknown_category", "empty_image"],
    "class_imbalance": ["too_many_instances"],
}
