"""Reports on segments and classes of pixels: the numbers in the file, counted by hand, and what is refused."""

import json
import pathlib
import re

import pytest
import tensorflow as tf
from panoptic_by_hand import Answering, config, write

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation import evaluate_model
from mrcnn_tf.evaluation.evaluate_model import evaluate
from mrcnn_tf.explain.inspection.inspect_data import inspect_data, read_result_folder
from mrcnn_tf.results.draw_panoptic import stuff_colour


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("panoptic"))


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """An own cache, and a reader that gives the numbers of the images alone, in no time."""
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        evaluate_model, "coco_dataset", lambda config, training: [{"image_id": tf.constant([1, 2], tf.int64)}]
    )


@pytest.fixture
def labels(data):
    """The same classes of pixels as label maps by themselves."""
    return config(pathlib.Path(data.images).parent, semantic_maps=str(pathlib.Path(data.images).parent / "labels"))


def page_data(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL).group(1))


def inspect(data, tmp_path, **more):
    """(`Inspection`, the data in its page)."""
    done = inspect_data(data, tmp_path / "r.html", progress=False, **more)
    json.dumps(done.to_json(), allow_nan=False)
    return done, page_data(tmp_path / "r.html")


def figures(row, names):
    return [row[name] for name in names]


def test_the_figures_are_those_counted_by_hand(data, tmp_path):
    done, page = inspect(data, tmp_path, model=Answering())
    found = page["regions"]["figures"]["panoptic"]
    rows = {row["name"]: figures(row, ("PQ", "SQ", "RQ", "tp", "fp", "fn")) for row in found["per_class"]}
    assert rows == {
        "cat": pytest.approx([0.8, 0.8, 1, 1, 0, 0]),
        "dog": [0, 0, 0, 0, 1, 0],
        "sky": [0.5, 1, 0.5, 1, 1, 1],
        "grass": pytest.approx([2 / 3, 1, 2 / 3, 1, 0, 1]),
    }
    assert [found[kind]["PQ"] for kind in ("all", "things", "stuff")] == pytest.approx([59 / 120, 0.4, 7 / 12])
    # All of the sky's 60 pixels found are sky, of 80; what is of no segment has the class of things.
    pixels = {row["name"]: row["IoU"] for row in page["regions"]["figures"]["semantic"]["per_class"]}
    assert pixels == pytest.approx({"things": 10 / 60, "sky": 60 / 80, "grass": 30 / 60})
    assert done.to_json()["model"]["results"]["panoptic"]["all"]["PQ"] == pytest.approx(59 / 120)


def test_each_segment_is_drawn_and_judged_and_the_worst_image_comes_first(data, tmp_path):
    _, page = inspect(data, tmp_path, model=Answering())
    assert [(image["file"], image["regions"]["q"]) for image in page["images"]] == [("2.png", 0), ("1.png", 0.9333)]
    names = [one["name"] for one in page["regions"]["classes"]]
    assert names == ["cat", "dog", "sky", "grass"]
    worst, best = (image["regions"] for image in page["images"])

    def listed(entries):
        return [(names[one["c"]], one["n"], one["v"], one.get("t"), one.get("i")) for one in entries]

    assert listed(worst["truth"]) == [("sky", 40, "missed", 0, 0.5), ("grass", 30, "missed", 1, 1.0)]
    assert listed(worst["found"]) == [("sky", 20, "false", 0, 0.5), ("dog", 40, "false", 1, 1.0)]
    assert listed(best["truth"])[2] == ("cat", 10, "matched", 2, 0.8)
    # 2000 units for 10 pixels: the cat's box, and its name in it.
    cat = best["truth"][2]
    assert (min(cat["m"][0][::2]), max(cat["m"][0][::2])) == (0, 1000)
    assert (min(cat["m"][0][1::2]), max(cat["m"][0][1::2])) == (800, 1200)
    assert 0 < cat["p"][0] < 1000 and 800 < cat["p"][1] < 1200
    assert len(best["truth"]) == len(best["found"]) == 3


def test_a_class_of_stuff_has_the_colour_of_other_pictures_and_things_one_of_the_page_s(data, tmp_path):
    _, page = inspect(data, tmp_path)
    cat, dog, sky, grass = page["regions"]["classes"]
    assert cat["colour"] is dog["colour"] is None
    for one, category in zip((sky, grass), data.stuff, strict=True):
        assert tuple(bytes.fromhex(one["colour"][1:])) == stuff_colour(category)


@pytest.mark.parametrize("kind", ["segments", "labels"])
def test_every_pixel_of_the_dataset_is_counted(data, labels, tmp_path, kind):
    done, page = inspect(data if kind == "segments" else labels, tmp_path)
    counts = page["regions"]["statistics"]
    assert (counts["images"], counts["pixels"], counts["unlabelled"]) == (2, 160, 10)
    rows = [(row["name"], row["pixels"], row["images"], row["share"]) for row in counts["classes"]]
    assert rows == [("things", 10, 1, 0.0625), ("sky", 80, 2, 0.5), ("grass", 60, 2, 0.375)]
    assert counts["unlabelled_share"] == 0.0625 and page["regions"]["figures"] is None
    assert done.to_json()["statistics"]["pixels"] == counts
    assert page["statistics"]["objects"] == (1 if kind == "segments" else 0)
    assert [len(image["regions"]["truth"]) for image in page["images"]] == [3, 2]
    assert all("found" not in image["regions"] for image in page["images"])


def test_things_of_a_panoptic_json_are_its_objects(data, tmp_path):
    done, page = inspect(data, tmp_path)
    assert [(row.name, row.objects) for row in done.statistics.classes] == [("cat", 1), ("dog", 0)]
    assert page["images"][0]["truths"][0]["b"] == [0, 800, 1000, 400]
    assert page["regions"]["objects"] and page["findings"] is None


def test_a_semantic_head_by_itself_is_judged_by_stuff(data, labels, tmp_path):
    done, page = inspect(data, tmp_path, model=Answering(instances=False))
    assert done.findings is None and page["findings"] is None
    assert page["regions"]["figures"]["panoptic"]["things"]["n"] == 0
    kinds = {image["file"]: [one["v"] for one in image["regions"]["truth"]] for image in page["images"]}
    assert kinds == {"2.png": ["missed", "missed"], "1.png": ["matched", "matched", "uncounted"]}
    assert [len(image["regions"]["found"]) for image in page["images"]] == [1, 2]
    assert done.to_json()["model"]["results"]["semantic"]["mIoU"] == pytest.approx((10 / 60 + 3 / 4 + 1 / 2) / 3)
    # Of label maps the classes of pixels are compared, all things being one.
    _, page = inspect(labels, tmp_path, model=Answering(instances=False))
    assert page["regions"]["figures"]["panoptic"] is None and not page["regions"]["segments"]
    first, second = (image["regions"] for image in page["images"])
    # In one image half of the sky and none of the grass is right, in the other only two pixels aren't.
    assert [first["q"], second["q"]] == pytest.approx([(0.5 + 0) / 2, (1 + 1 + 1) / 3], abs=1e-4)
    assert [one["v"] for one in first["truth"]] == ["compared"] * 2


def test_the_folder_of_an_evaluation_gives_the_same_pictures_and_figures(data, tmp_path):
    _, page = inspect(data, tmp_path, model=Answering())
    evaluate(Answering(), data, progress=False, out=tmp_path / "out")
    done, again = inspect(data, tmp_path, detections=read_result_folder(tmp_path / "out"))
    assert [image["regions"] for image in again["images"]] == [image["regions"] for image in page["images"]]
    assert again["regions"]["figures"] == page["regions"]["figures"]
    assert done.findings.results.bbox["AP"] == 0
    evaluate(Answering(instances=False), data, progress=False, out=tmp_path / "stuff")
    done, again = inspect(data, tmp_path, detections=read_result_folder(tmp_path / "stuff"))
    assert done.findings is None and again["regions"]["figures"]["panoptic"]["things"]["n"] == 0


def test_a_folder_without_segments_still_has_its_figures_of_pixels(labels, tmp_path):
    evaluate(Answering(instances=False), labels, progress=False, out=tmp_path / "out")
    _, page = inspect(labels, tmp_path, detections=read_result_folder(tmp_path / "out"))
    assert page["regions"]["figures"]["semantic"]["mIoU"] == pytest.approx((10 / 60 + 3 / 4 + 1 / 2) / 3)
    assert all("found" not in image["regions"] for image in page["images"])


def test_folders_that_no_evaluation_wrote_are_refused(data, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(UserError, match=r"Can't read .*results.json.*give the whole folder"):
        read_result_folder(folder)
    evaluate(Answering(), data, progress=False, out=folder)
    good = (folder / "results.json").read_text()
    for text in ("[]", "{}", "not json", json.dumps({"images": 2, "panoptic": {"a": 1}})):
        (folder / "results.json").write_text(text)
        with pytest.raises(UserError, match="isn't what an evaluation writes"):
            read_result_folder(folder)
    fewer = json.loads(good)
    fewer["panoptic"]["per_class"] = fewer["panoptic"]["per_class"][:1]
    (folder / "results.json").write_text(json.dumps(fewer))
    with pytest.raises(UserError, match="is of category 21, which wasn't evaluated"):
        inspect_data(data, tmp_path / "r.html", detections=read_result_folder(folder), progress=False)
    (folder / "results.json").write_text(good)
    (folder / "panoptic.json").rename(folder / "elsewhere.json")
    with pytest.raises(UserError, match=r"There is no .*panoptic.json, and .*results.json has panoptic figures"):
        read_result_folder(folder)


def test_what_was_found_in_other_images_is_refused(data, tmp_path):
    folder = tmp_path / "out"
    evaluate(Answering(), data, progress=False, out=folder)
    found = json.loads((folder / "panoptic.json").read_text())
    for record in found["images"] + found["annotations"]:
        key = "id" if "id" in record else "image_id"
        record[key] += 70
    (folder / "panoptic.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match="has none of the images of"):
        inspect_data(data, tmp_path / "r.html", detections=read_result_folder(folder), progress=False)


def test_data_of_instances_alone_have_no_regions(data, tmp_path):
    instances = {
        "images": [{"id": 1, "file_name": "1.png", "height": 8, "width": 10}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 4, 5, 2], "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(instances))
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 4, 4, 2], "score": 0.9}]
    done, page = inspect(config(pathlib.Path(data.images).parent, annotations=str(path)), tmp_path, detections=found)
    assert "regions" not in page and all("regions" not in one and "rank" not in one for one in page["images"])
    assert "pixels" not in done.to_json()["statistics"] and done.regions is None
