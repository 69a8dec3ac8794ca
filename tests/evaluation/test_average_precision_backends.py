"""hotcoco against pycocotools: every figure the same to 1e-9, on random datasets and on awkward ones."""

import json
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.evaluation.average_precision import BACKENDS, evaluate_detections, run_keypoint_protocol, run_protocol
from mrcnn_tf.evaluation.evaluate_model import CocoAP
from mrcnn_tf.evaluation.instance_ground_truth import read_instance_ground_truth

HEIGHT, WIDTH = 150, 200
POINTS = {7: ["tip", "tail"], 900: ["a", "b", "c"]}  # of the two categories with keypoints
CATEGORY_IDS = [900, 0, 7, 31]  # sparse, unsorted, and one of them 0


def ellipse(box):
    """The polygon of an ellipse that fills a box."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    centre, radii = np.array(box[:2]) + np.array(box[2:]) / 2, np.array(box[2:]) / 2
    return [(centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1)).ravel().round(2).tolist()]


def rle(box):
    encoded = coco_mask.frPyObjects(ellipse(box), HEIGHT, WIDTH)[0]
    return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}


def runs(box):
    flat = coco_mask.decode(rle(box)).ravel(order="F")
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(bounds).tolist()}


def random_box(generator):
    width, height = generator.choice([6, 20, 40, 110, 140], 2)
    return [*generator.integers(0, [WIDTH - width + 1, HEIGHT - height + 1]).tolist(), int(width), int(height)]


def random_dataset(seed, images=6, objects=5, detections=14, crowds=0.15):
    """(COCO json, detections): ties, crowds, boxes of all sizes, masks in each of COCO's forms, keypoints."""
    generator = np.random.default_rng(seed)
    image_ids = [*generator.choice(10**6, images - 1, replace=False).tolist(), 2**40]
    annotations, results = [], []
    for image_id in image_ids:
        placed = []
        for _ in range(generator.integers(0, objects + 1)):
            box, category = random_box(generator), int(generator.choice(CATEGORY_IDS))
            form = (ellipse, rle, runs)[generator.integers(3)]
            record = {"id": len(annotations), "image_id": image_id, "category_id": category, "bbox": box}
            record |= {"segmentation": form(box), "iscrowd": int(generator.random() < crowds)}
            if category in POINTS:
                record["keypoints"] = points(generator, box, len(POINTS[category]))
            annotations.append(record)
            placed.append((box, category, record.get("keypoints")))
        for _ in range(generator.integers(0, detections + 1)):
            box, category, near = random_box(generator), int(generator.choice(CATEGORY_IDS)), None
            if placed and generator.random() < 0.8:
                box, category, near = placed[generator.integers(len(placed))]
                box = np.maximum(np.array(box) + generator.integers(-3, 4, 4), [0, 0, 1, 1]).tolist()
            result = {"image_id": image_id, "category_id": category, "bbox": box, "segmentation": rle(box)}
            if category in POINTS:
                shift = generator.integers(-4, 5, 3 * len(POINTS[category])) * ([1, 1, 0] * len(POINTS[category]))
                spread = points(generator, box, len(POINTS[category]))
                result["keypoints"] = spread if near is None else (np.array(near) + shift).tolist()
            results.append(result | {"score": int(generator.integers(1, 6)) / 5})
    sizes = [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH, "license": None} for i in image_ids]
    categories = [
        {"id": i, "name": f"class {i}"} | ({"keypoints": POINTS[i]} if i in POINTS else {}) for i in CATEGORY_IDS
    ]
    return {"images": sizes, "categories": categories, "annotations": annotations}, results


def points(generator, box, number):
    places = np.array(box[:2]) + generator.integers(0, 11, (number, 2)) / 10 * np.array(box[2:])
    visible = generator.integers(0, 3, (number, 1))
    return np.concatenate([places * (visible > 0), visible], 1).ravel().tolist()


def outcomes(tmp_path, data, results, **choices):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data))
    return [evaluate_detections(results, path, backend=backend, **choices).to_json() for backend in BACKENDS]


def assert_same(one, other):
    for kind in ("bbox", "segm", "keypoints"):
        assert_alike(one[kind] or {}, other[kind] or {})
    for mine, theirs in zip(one["per_class"], other["per_class"], strict=True):
        assert mine.pop("name") == theirs.pop("name")
        assert_alike(mine, theirs)
    same = ("images", "skipped", "notes")
    assert [one[name] for name in same] == [other[name] for name in same]


def assert_alike(mine, theirs):
    assert list(mine) == list(theirs)
    values = [np.array(list(figures.values()), float) for figures in (mine, theirs)]  # NaN for None
    np.testing.assert_allclose(*values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_random_datasets_have_the_same_figures(tmp_path, seed):
    data, results = random_dataset(seed)
    one, other = outcomes(tmp_path, data, results, sigmas={"class 7": [0.03, 0.11]})
    assert_same(one, other)
    assert 0 < one["bbox"]["AP"] < 1 and 0 < one["segm"]["AP"] < 1 and one["keypoints"] is not None


@pytest.mark.parametrize("seed", range(4))
def test_each_precision_and_recall_is_the_same(tmp_path, seed):
    data, results = random_dataset(seed)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data))
    truth, image_ids = read_instance_ground_truth(path), [image["id"] for image in data["images"]]
    sigmas = {category_id: np.linspace(0.05, 0.2, len(names)) for category_id, names in POINTS.items()}
    for kind in ("bbox", "segm"):
        runs = [run_protocol(kind, truth, results, image_ids, CATEGORY_IDS, backend) for backend in BACKENDS]
        compare_arrays(*runs)
    compare_arrays(*(run_keypoint_protocol(truth, results, image_ids, sigmas, backend) for backend in BACKENDS))


def compare_arrays(one, other):
    assert one.params.catIds == other.params.catIds
    for name in ("precision", "recall"):
        assert one.eval[name].size and (one.eval[name] > 0).any()
        np.testing.assert_allclose(other.eval[name], one.eval[name], rtol=0, atol=1e-9)
    np.testing.assert_allclose(other.stats, one.stats, rtol=0, atol=1e-9)


def without_truth(data, results):
    return data | {"annotations": []}, results


def truth_in_one_image(data, results):
    image = data["annotations"][0]["image_id"]
    return data | {"annotations": [a for a in data["annotations"] if a["image_id"] == image]}, results


def without_detections(data, results):
    return data, []


def crowds_alone(data, results):
    return data | {"annotations": [a | {"iscrowd": 1} for a in data["annotations"]]}, results


def without_masks(data, results):
    annotations = [{key: a[key] for key in a if key != "segmentation"} for a in data["annotations"]]
    return data | {"annotations": annotations}, results


def some_masks_missing(data, results):
    annotations = [a | ({"segmentation": []} if a["id"] % 2 else {}) for a in data["annotations"]]
    return data | {"annotations": annotations}, results


def detections_without_masks(data, results):
    return data, [{key: r[key] for key in r if key != "segmentation"} for r in results]


def all_scores_alike(data, results):
    return data, [r | {"score": 0.5} for r in results]


def areas_of_their_own(data, results):
    sizes = [0, 1024, 1024.5, 9216, 10**7]
    annotations = [a | {"area": sizes[number % 5]} for number, a in enumerate(data["annotations"])]
    return data | {"annotations": annotations}, results


def unlabelled_keypoints(data, results):
    annotations = [a | ({"num_keypoints": 0} if a["id"] % 2 else {}) for a in data["annotations"]]
    return data | {"annotations": annotations}, results


def three_hundred_of_one_class(data, results):
    few = [r | {"category_id": 31, "image_id": 2**40, "score": number % 9 / 9} for number, r in enumerate(results * 20)]
    truths = [a | {"category_id": 31, "image_id": 2**40} for a in data["annotations"]]
    assert len(few) >= 300
    return data | {"annotations": truths}, few[:300]  # pycocotools.mask.area fails beyond 255


AWKWARD = [
    without_truth,
    truth_in_one_image,
    without_detections,
    crowds_alone,
    without_masks,
    some_masks_missing,
    detections_without_masks,
    all_scores_alike,
    areas_of_their_own,
    unlabelled_keypoints,
    three_hundred_of_one_class,
]


@pytest.mark.parametrize("change", AWKWARD, ids=lambda change: change.__name__)
def test_awkward_datasets_have_the_same_figures(tmp_path, change):
    for seed in (100, 101):
        assert_same(*outcomes(tmp_path, *change(*random_dataset(seed))))


def test_some_images_of_a_dataset_have_the_same_figures(tmp_path):
    data, results = random_dataset(200)
    ids = [image["id"] for image in data["images"]]
    assert_same(*outcomes(tmp_path, data, results, image_ids=[ids[-1], ids[0], ids[0]]))


def test_nothing_is_printed_and_the_detections_stay_as_they_are(tmp_path, capsys, recwarn):
    data, results = random_dataset(300)
    before = json.dumps(results)
    outcomes(tmp_path, data, results, sigmas={"class 7": [0.03, 0.11]})
    assert json.dumps(results) == before
    assert capsys.readouterr().out == "" and not [w for w in recwarn if "hotcoco" in str(w.message)]


@pytest.fixture
def uninstalled(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)


def test_without_hotcoco_the_remedy_is_named(tmp_path, uninstalled):
    with pytest.raises(UserError, match=r"pip install 'mrcnn-tf\[coco\]'"):
        outcomes(tmp_path, *random_dataset(0))
    with pytest.raises(UserError, match=r"mrcnn-tf\[coco\]"):  # at once, not after an epoch
        CocoAP(DataConfig(coco_backend="hotcoco"))


def test_an_unknown_backend_is_refused(tmp_path):
    with pytest.raises(UserError, match="pycocotools, hotcoco"):
        evaluate_detections([], tmp_path / "truth.json", backend="fast")
    with pytest.raises(UserError, match="data.val.coco_backend"):
        load_config("nuclei_r18_fpn", ["data.val.coco_backend=fast"])
    assert load_config("nuclei_r18_fpn", ["data.val.coco_backend=hotcoco"]).data.val.coco_backend == "hotcoco"
