"""The report's file: what it holds, how large it gets, what is refused; thumbnails upright and within a budget."""

import base64
import io
import json
import re

import numpy as np
import pytest
from counted_by_hand import DETECTIONS, detection, write_dataset
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.evaluation.average_precision import evaluate_detections
from mrcnn_tf.explain.inspection import report
from mrcnn_tf.explain.inspection.inspect_data import inspect_data, read_detections
from mrcnn_tf.explain.inspection.report import THUMBNAIL_SIZES, encode_thumbnail, encode_thumbnails


def page_data(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL).group(1))


def inspect(dataset, out, **more):
    return inspect_data(DataConfig(str(dataset[0]), str(dataset[1])), out, progress=False, **more)


def test_the_page_holds_coco_s_figures_and_every_object(dataset, tmp_path):
    done = inspect(dataset, tmp_path / "r.html", detections=DETECTIONS)
    assert (done.report.images, done.report.unreadable) == (3, 1)
    assert done.report.size == (tmp_path / "r.html").stat().st_size
    data = page_data(tmp_path / "r.html")
    expected = evaluate_detections(DETECTIONS, str(dataset[0])).to_json()
    assert data["findings"]["results"] == json.loads(json.dumps(expected))
    by_file = {image["file"]: image for image in data["images"]}
    assert [image["file"] for image in data["images"]][-1] == "one.png"  # the one with the least wrong is last
    one = by_file["one.png"]
    assert [entry["s"] for entry in one["detections"]] == [0.9, 0.6, 0.3]
    assert [entry["v"] for entry in one["detections"]] == ["correct", "correct", "background"]
    assert [entry.get("t") for entry in one["detections"]] == [0, 1, None]
    assert one["truths"][0]["b"] == [round(side * 2000 / 120) for side in (10, 10, 40, 30)]
    two = by_file["two with space.png"]
    assert [entry["v"] for entry in two["detections"]] == ["class", "localisation"]
    assert two["detections"][1]["i"] == pytest.approx(1 / 3, abs=1e-3)
    broken = by_file["broken.jpg"]
    assert broken["picture"] is None and [bool(entry.get("crowd")) for entry in broken["truths"]] == [False, True]
    json.dumps(done.to_json(), allow_nan=False)


def test_a_score_of_a_threshold_of_two_decimals_stays_on_its_side(dataset, tmp_path):
    scores = [0.29, np.float32(0.57).item(), 0.49999999, 0.5, 0.1 + 0.2, 1.0]
    found = [detection(1, 3, [10 + n, 10, 40, 30], score) for n, score in enumerate(scores)]
    inspect(dataset, tmp_path / "r.html", detections=found)
    images = page_data(tmp_path / "r.html")["images"]
    written = next(image for image in images if image["file"] == "one.png")["detections"]
    for entry, score in zip(written, sorted(scores, reverse=True), strict=True):
        for hundredths in range(101):
            assert (entry["s"] >= hundredths / 100) == (score >= hundredths / 100)


def test_nothing_in_the_data_can_end_its_script_element(tmp_path):
    path, images = write_dataset(tmp_path, ("</script>", "<!--<script>\u2028\ud800"))
    inspect((path, images), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and text.count("<script") == 2 and "<!--" not in text
    names = [one["name"] for one in page_data(tmp_path / "r.html")["classes"]]
    assert names == ["</script>", "<!--<script>\u2028\ud800"]


def test_neither_style_nor_program_names_an_address():
    text = report.render_page("t", {})
    addresses = set(re.findall(r"https?://[^\"' )]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # SVG's name, which nobody fetches
    assert "@import" not in text and "url(" not in text


def test_of_many_images_some_from_all_over_the_json_are_shown(dataset, tmp_path):
    data = json.loads(dataset[0].read_text())
    data["images"] = [data["images"][0] | {"id": number} for number in range(1, 41)]
    path = tmp_path / "many.json"
    path.write_text(json.dumps(data))
    inspect((path, dataset[1]), tmp_path / "r.html", limit=4)
    shown = page_data(tmp_path / "r.html")
    assert [image["id"] for image in shown["images"]] == [1, 11, 21, 31] and shown["statistics"]["images"] == 40


def test_with_a_model_the_worst_images_are_shown(dataset, tmp_path):
    inspect(dataset, tmp_path / "r.html", detections=DETECTIONS, limit=1)
    assert [image["file"] for image in page_data(tmp_path / "r.html")["images"]] == ["two with space.png"]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """40 pictures that are hard to compress, each with 12 ragged masks."""
    from pycocotools import mask as coco_mask

    folder = tmp_path_factory.mktemp("noisy")
    generator = np.random.default_rng(0)
    records, annotations = [], []
    for number in range(1, 41):
        noise = generator.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((320, 240)).save(folder / f"{number}.jpg")
        records.append({"id": number, "file_name": f"{number}.jpg", "width": 320, "height": 240})
        for _ in range(12):
            x, y = generator.integers(0, 200, 2)
            pixels = np.zeros((240, 320), np.uint8, order="F")
            pixels[y : y + 40, x : x + 60] = np.kron(generator.integers(0, 2, (8, 12)), np.ones((5, 5)))[: 240 - y]
            pixels[y : y + 5, x : x + 60] = 1
            rle = coco_mask.encode(pixels)
            mask = {"size": [240, 320], "counts": rle["counts"].decode()}
            box = coco_mask.toBbox(rle).tolist()
            common = {"image_id": number, "category_id": 1, "bbox": box, "segmentation": mask}
            annotations.append(common | {"id": len(annotations) + 1, "iscrowd": 0})
    path = folder / "a.json"
    path.write_text(json.dumps({"images": records, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}))
    return path, folder


@pytest.mark.parametrize("budget", [2_000_000, 400_000, 250_000])
def test_pictures_and_outlines_fit_the_budget(noisy, tmp_path, monkeypatch, budget):
    monkeypatch.setattr(report, "BUDGET", budget)
    done = inspect(noisy, tmp_path / "r.html")
    fixed = len(report.render_page("", {}))
    assert budget / 3 < done.report.size - fixed <= budget
    assert done.report.images == 40


def test_images_are_left_away_where_even_coarse_outlines_are_too_many(noisy, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "BUDGET", 60_000)
    done = inspect(noisy, tmp_path / "r.html")
    assert 1 <= done.report.images < 40
    assert done.report.size - len(report.render_page("", {})) <= 60_000
    assert "More would make the file too large." in page_data(tmp_path / "r.html")["notes"]


def test_a_folder_without_the_images_is_refused(dataset, tmp_path):
    with pytest.raises(
        UserError, match=r"No picture of .*annotations.json can be shown.*isn't there.*check the folder"
    ):
        inspect((dataset[0], tmp_path), tmp_path / "r.html")
    with pytest.raises(UserError, match=r"There is no folder .*nowhere.*say where the images"):
        inspect((dataset[0], tmp_path / "nowhere"), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_detections_of_other_images_are_refused(dataset, tmp_path):
    with pytest.raises(UserError, match="image 99, which .* lacks"):
        inspect(dataset, tmp_path / "r.html", detections=[detection(99, 3, [1, 1, 5, 5], 0.5)])


def test_no_detections_at_all_are_a_report(dataset, tmp_path):
    done = inspect(dataset, tmp_path / "r.html", detections=[])
    assert done.findings.results.bbox["AP"] == 0 and done.findings.threshold == 0.5
    assert len(page_data(tmp_path / "r.html")["images"]) == 3


GOOD = detection(1, 3, [10, 10, 40, 30], 0.9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "isn't valid json"),
        ("{}", "holds no list of detections"),
        ([3], "Entry 0 of .* isn't a detection"),
        ([GOOD, GOOD | {"image_id": None}], "Entry 1 of .* lacks an image_id, or a whole number as category_id"),
        ([GOOD | {"bbox": [1, 2, 3]}], "has no bbox of four numbers"),
        ([GOOD | {"bbox": [1, 2, 3, float("nan")]}], "has no bbox of four numbers"),
        ([GOOD | {"score": None}], "has no number as score"),
        ([GOOD | {"segmentation": [[1, 1, 5, 1, 5, 5]]}], "has a segmentation that isn't an RLE"),
        ([GOOD, GOOD | {"segmentation": {"size": [80, 120], "counts": "11"}}], "Entry 1 of .* doesn't fill its size"),
        ([GOOD | {"keypoints": [1, 2]}], "three numbers each"),
    ],
)
def test_a_file_that_isn_t_a_list_of_detections_is_refused(tmp_path, content, message):
    path = tmp_path / "d.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_detections(path)


def test_a_file_of_detections_is_read_as_it_is(dataset, tmp_path):
    assert read_detections(dataset[2]) == DETECTIONS
    boxes = [{key: value for key, value in one.items() if key != "segmentation"} for one in DETECTIONS]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    assert read_detections(tmp_path / "boxes.json") == boxes
    with pytest.raises(UserError, match="Can't read the detections"):
        read_detections(tmp_path / "none.json")


def pixels(one):
    head, data = one.address.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), np.int64)


def quarters(height=60, width=100):
    """Four colours, so that every turn and mirroring shows."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 250, 20, 20
    image[: height // 2, width // 2 :] = 20, 250, 20
    image[height // 2 :, : width // 2] = 20, 20, 250
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_applied_when_the_json_describes_the_upright_image(tmp_path, orientation):
    from PIL import ImageOps

    image = Image.fromarray(quarters())
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))
    seen = pixels(encode_thumbnail(tmp_path / "a.jpg", (upright.height, upright.width), 50, 95))
    wanted = np.asarray(upright.resize((seen.shape[1], seen.shape[0]), Image.Resampling.LANCZOS), np.int64)
    assert seen.shape == ((50, 30, 3) if orientation >= 5 else (30, 50, 3))
    assert np.abs(seen - wanted).mean() < 6


def test_exif_is_left_alone_when_the_json_describes_the_file_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(quarters()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    one = encode_thumbnail(tmp_path / "a.jpg", (60, 100), 100, 95)
    assert np.abs(pixels(one) - quarters().astype(np.int64)).mean() < 6 and one.note == ""


@pytest.mark.parametrize("kind", ["L", "P", "RGBA", "1", "CMYK", "I;16"])
def test_every_kind_of_image_is_shown(tmp_path, kind):
    if kind == "I;16":
        image = Image.fromarray((quarters()[..., 0].astype(np.uint16)) << 8)
    else:
        image = Image.fromarray(quarters()).convert(kind)
    path = tmp_path / ("a.tif" if kind in ("CMYK", "I;16") else "a.png")
    image.save(path)
    seen = pixels(encode_thumbnail(path, (60, 100), 100, 90))
    assert seen.shape == (60, 100, 3)
    assert seen[5:15, 5:15].mean() > seen[45:55, 85:95].mean() + 50  # the dark quarter stays dark


def test_files_without_a_picture_say_why(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(quarters()).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:80])
    assert encode_thumbnail(tmp_path / "none.png", (60, 100), 50, 80).problem == "the file isn't there"
    for name, problem in (("text.png", "isn't a readable image"), ("half.png", "is cut off or damaged")):
        one = encode_thumbnail(tmp_path / name, (60, 100), 50, 80)
        assert one.address is None and one.problem == f"the file {problem}"


def test_another_size_than_the_json_says_is_noted_and_the_json_s_shape_drawn(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "a.png")
    one = encode_thumbnail(tmp_path / "a.png", (200, 100), 50, 80)
    assert "100 x 60 pixels" in one.note and pixels(one).shape == (50, 25, 3)


def test_a_small_image_is_not_enlarged(tmp_path):
    Image.fromarray(quarters(6, 10)).save(tmp_path / "a.png")
    assert pixels(encode_thumbnail(tmp_path / "a.png", (6, 10), 480, 80)).shape == (6, 10, 3)


def test_all_together_stay_within_the_budget_and_use_it(tmp_path):
    generator = np.random.default_rng(0)
    paths = []
    for number in range(30):
        noise = generator.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        paths.append(tmp_path / f"{number}.jpg")
        Image.fromarray(noise).resize((480, 360)).save(paths[-1])
    for budget in (600_000, 150_000):
        calls = []
        made = encode_thumbnails(paths, [(360, 480)] * 30, budget, lambda calls=calls: calls.append(1))
        size = sum(len(one.address) for one in made)
        assert budget / 3 < size <= budget and len(calls) >= 30
    smallest = encode_thumbnails(paths, [(360, 480)] * 30, 10)
    assert all(pixels(one).shape[1] == THUMBNAIL_SIZES[-1][0] for one in smallest)
    assert encode_thumbnails([], [], 1000) == []
