import shutil

import numpy as np
import pytest
from PIL import Image
from sound_dataset import Dataset, annotation, counts, picture

from mrcnn_tf.datasets.doctor.image_copies import find_look_alikes, make_thumbnails


@pytest.fixture
def val(tmp_path):
    return Dataset(tmp_path, "val", seed=1)


def compared(dataset, val):
    return dataset.check(val=val.write())


def test_different_pictures_are_no_leak(dataset, val):
    report = compared(dataset, val)
    assert report.findings == [] and len(report.examinations) == 2


def test_the_same_bytes_and_the_same_look_are_told_apart(dataset, val):
    names = [record["file_name"] for record in dataset.records]
    shutil.copy(dataset.images / names[0], val.images / val.records[1]["file_name"])
    with Image.open(dataset.images / names[1]) as image:
        image.resize((128, 96)).save(val.images / "smaller.jpg", quality=70)
    (val.images / val.records[2]["file_name"]).unlink()
    val.records[2].update(file_name="smaller.jpg", width=128, height=96)
    for number in (9, 10, 11):
        box = [2 * side for side in val.annotations[number]["bbox"]]
        val.annotations[number] = annotation(number + 1, 3, box)
    report = compared(dataset, val)
    assert counts(report) == {"leaked_image": 1, "leaked_copy": 1}
    exact, similar = report.comparison
    assert exact.problems[0].record == 2 and names[0] in exact.problems[0].message
    assert similar.problems[0].record == 3 and names[1] in similar.problems[0].message


def test_one_folder_for_both(dataset, val):
    """What the other json names isn't left over, and a file that both name is in both."""
    for record in val.records:
        shutil.copy(val.images / record["file_name"], dataset.images / ("val " + record["file_name"]))
        record["file_name"] = "val " + record["file_name"]
    val.images = dataset.images
    assert compared(dataset, val).findings == []
    val.records[0]["file_name"] = dataset.records[2]["file_name"]
    report = compared(dataset, val)
    assert counts(report)["leaked_image"] == 1
    val.document["images"] = dataset.records
    assert counts(compared(dataset, val))["leaked_image"] == 3


def test_categories_must_be_the_same(dataset, val):
    val.categories[0]["name"] = "cell"
    val.categories.append({"id": 5, "name": "dot"})
    report = compared(dataset, val)
    assert counts(report) == {"other_categories": 2, "empty_class": 1}
    first, second = (problem.message for problem in report.comparison[0].problems)
    assert "'细胞' in " in first and "'cell' in " in first
    assert "'dot' in " in second and f"absent from {dataset.json}" in second
    assert report.has_errors()


def _variants(path):
    image = picture(1).resize((256, 192), Image.Resampling.BICUBIC)
    image.save(path / "0.png")
    image.save(path / "1.jpg", quality=50)
    image.resize((100, 75)).save(path / "2.png")
    image.convert("L").save(path / "3.png")
    Image.fromarray((np.asarray(image) * 0.6 + 40).astype(np.uint8)).save(path / "4.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path / "5.jpg", exif=exif)
    return [str(path / name) for name in ("0.png", "1.jpg", "2.png", "3.png", "4.png", "5.jpg")]


def test_copies_look_alike_and_others_do_not(tmp_path):
    variants = make_thumbnails(_variants(tmp_path), lambda number: None)
    assert find_look_alikes(variants[1:], variants[:1]).tolist() == [[n, 0] for n in range(5)]
    rng = np.random.default_rng(0)
    others = []
    for number in range(60):
        image = picture(number + 10)
        if number % 3 == 0:  # a bright spot in the dark, as under a microscope
            x, y = rng.uniform(10, 50, 2)
            rows, columns = np.mgrid[:48, :64]
            spot = 200 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 40) + rng.uniform(0, 8, (48, 64))
            image = Image.fromarray(spot.clip(0, 255).astype(np.uint8))
        image.save(tmp_path / f"other {number}.png")
        others.append(str(tmp_path / f"other {number}.png"))
    Image.new("RGB", (64, 48), (9, 9, 9)).save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    others += [str(tmp_path / "plain.png"), str(tmp_path / "broken.png")]
    pictures = make_thumbnails(others, lambda number: None)
    pairs = find_look_alikes(pictures, pictures)
    assert pairs.tolist() == [[number, number] for number in range(60)]
