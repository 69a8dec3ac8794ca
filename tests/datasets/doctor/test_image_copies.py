import shutil

import numpy as np
import pytest
import rich.console
from PIL import Image, ImageDraw
from sound_dataset import BOXES, HEIGHT, WIDTH, Dataset, annotation, counts, picture

from mrcnn_tf.common.problems import progress_bars
from mrcnn_tf.datasets.doctor import image_copies, validation
from mrcnn_tf.datasets.doctor.image_copies import find_look_alikes


def make_thumbnails(paths):
    with progress_bars(False) as bars:
        thumbnails = image_copies.make_thumbnails([str(path) for path in paths], bars)
    return np.stack(list(thumbnails.values()))


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
    variants = make_thumbnails(_variants(tmp_path))
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
    pictures = make_thumbnails(others)
    pairs = find_look_alikes(pictures, pictures)
    assert pairs.tolist() == [[number, number] for number in range(60)]
    assert find_look_alikes(pictures).tolist() == []


def add_copy(dataset, number, name, image, **options):
    """Lists a file with the picture `image`, too, and one object in it."""
    image.save(dataset.images / name, **options)
    width, height = image.size
    dataset.records.append({"id": number, "file_name": name, "width": width, "height": height})
    dataset.annotations.append(annotation(10 * number, number, BOXES[0]))


def test_near_copies_within_a_set_name_both_files(dataset, val):
    first, second = (dataset.records[index]["file_name"] for index in (0, 1))
    add_copy(dataset, 7, "smaller.jpg", picture(1).resize((40, 30)), quality=60)
    add_copy(dataset, 8, "brighter.png", picture(2).point(lambda grey: 0.8 * grey + 40))
    add_copy(dataset, 9, "same.png", picture(2))  # of the same bytes: only a duplicate_picture
    dataset.records.append({"id": 10, "file_name": second, "width": WIDTH, "height": HEIGHT})  # a shared_file
    report = dataset.check()
    found = counts(report)
    assert (found["duplicate_picture"], found["shared_file"], found["similar_picture"]) == (1, 1, 2)
    (finding,) = (finding for finding in report.findings if finding.kind == "similar_picture")
    assert finding.severity == "note" and not finding.fix
    smaller, brighter = finding.problems
    assert smaller.record == 7 and "smaller.jpg) looks like" in smaller.message and first in smaller.message
    assert brighter.record == 8 and "brighter.png" in brighter.message and second in brighter.message
    kinds = [finding.kind for finding in report.findings]
    assert kinds == [kind for kind in validation.PROBLEM_KINDS if kind in kinds]
    add_copy(val, 7, "smaller.jpg", picture(1, seed=1).resize((40, 30)))
    found = {finding.kind: finding.count for finding in compared(dataset, val).examinations[1].findings}
    assert found == {"similar_picture": 1}


@pytest.mark.parametrize("limit", ["FULL_CHECK_BYTES", "FEW_IMAGES"])
def test_large_sets_are_compared_only_if_asked_for(dataset, val, monkeypatch, limit):
    add_copy(dataset, 7, "smaller.png", picture(1).resize((40, 30)))
    monkeypatch.setattr(validation, limit, 3)
    report = dataset.check()
    assert report.findings == [] and _has_hint(report)
    for asked in (dataset.check(similar=True), compared(dataset, val)):
        assert counts(asked) == {"similar_picture": 1} and not _has_hint(asked)


def _has_hint(report):
    console = rich.console.Console(width=80)
    with console.capture() as capture:
        console.print(report.table())
    return "Near copies weren't looked for: add --similar." in capture.get()


@pytest.mark.parametrize("mode", ["P", "1", "I;16", "PA", "LA", "CMYK"])
def test_pictures_of_every_mode_are_compared(tmp_path, mode):
    image = picture(1).resize((400, 300), Image.Resampling.BICUBIC)
    image.save(tmp_path / "rgb.png")
    if mode == "I;16":
        other = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16)
    else:
        other = image.convert("L").convert({"PA": "LA"}.get(mode, mode)).convert(mode)
    other.save(tmp_path / "other.tiff")
    with Image.open(tmp_path / "other.tiff") as opened:
        assert opened.mode == mode
    assert find_look_alikes(make_thumbnails([tmp_path / "rgb.png", tmp_path / "other.tiff"])).tolist() == [[1, 0]]


def _frames(count):
    """A fixed camera's: a small square moves before the same background."""
    for number in range(count):
        image = picture(5).resize((320, 240), Image.Resampling.BICUBIC)
        image.paste((255, 255, 255), (20 + 3 * number, 100, 32 + 3 * number, 112))
        yield image


def _pages(count, rng):
    """Pages of text, as grey words in lines."""
    for _ in range(count):
        image = Image.new("L", (300, 400), 255)
        draw = ImageDraw.Draw(image)
        for top in range(30, 370, 7):
            left = 30
            while left < (270 if rng.random() < 0.8 else rng.uniform(60, 270)):
                width = int(rng.integers(4, 25))
                draw.rectangle([left, top, min(left + width, 270), top + 3], fill=int(rng.integers(60, 140)))
                left += width + 4
        yield image


def _dishes(count, rng):
    """The same bright well in the dark, with other cells in it."""
    rows, columns = np.mgrid[:128, :128]
    for _ in range(count):
        grey = np.where((rows - 64) ** 2 + (columns - 64) ** 2 < 57**2, 180.0, 20.0)
        for y, x in rng.uniform(25, 103, (25, 2)):
            grey -= 60 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 10)
        yield Image.fromarray((grey + rng.normal(0, 4, grey.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("kind", "expected"), [("frames", 7), ("pages", 0), ("dishes", 0)])
def test_frames_are_near_copies_pages_and_dishes_are_not(tmp_path, kind, expected):
    rng = np.random.default_rng(0)
    images = {"frames": lambda: _frames(8), "pages": lambda: _pages(20, rng), "dishes": lambda: _dishes(20, rng)}
    paths = []
    for number, image in enumerate(images[kind]()):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    assert len(find_look_alikes(make_thumbnails(paths))) == expected


def test_tiles_give_what_one_table_gives(monkeypatch):
    """Each of the pictures but the first has the best of those before it; plain ones have none."""
    rng = np.random.default_rng(0)
    thumbnails = rng.uniform(0, 255, (6, 16, 16)).astype(np.float32)[rng.integers(0, 6, 50)]
    thumbnails += rng.normal(0, 4, thumbnails.shape).astype(np.float32)
    thumbnails[7] = 9
    with np.errstate(invalid="ignore"):
        correlation = np.nan_to_num(np.corrcoef(thumbnails.reshape(50, -1)))
    expected = [[row, correlation[row, :row].argmax()] for row in range(1, 50) if correlation[row, :row].max() > 0.98]
    assert 40 < len(expected) < 50
    for side in (2048, 7):
        monkeypatch.setattr(image_copies, "TILE", side)
        assert find_look_alikes(thumbnails).tolist() == expected
        parts = [find_look_alikes(thumbnails[row : row + 1], thumbnails[:row]).tolist() for row in range(1, 50)]
        assert [[0, match] for _, match in expected] == [pair for pairs in parts for pair in pairs]
