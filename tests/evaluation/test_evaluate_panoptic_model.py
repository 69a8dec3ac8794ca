"""Evaluation of models with a semantic head, with stand-ins that know the answers, on a generated dataset."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import (
    DataConfig,
    ResizeConfig,
)
from mrcnn_tf.datasets.panoptic_shapes import make_panoptic_shapes
from mrcnn_tf.evaluation import evaluate_model
from mrcnn_tf.evaluation.evaluate_model import CocoAP, EvaluatedImages, evaluate, main_metric
from mrcnn_tf.evaluation.ground_truth import read_ground_truth
from mrcnn_tf.evaluation.panoptic_ground_truth import read_panoptic_ground_truth
from mrcnn_tf.results.detections import Detections, SemanticMap
from mrcnn_tf.results.segments import Panoptic, Segment

IMAGES, SIDE = 4, 64


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_panoptic_shapes(tmp_path_factory.mktemp("panoptic"), IMAGES, 3, SIDE)


@pytest.fixture(scope="module")
def known(made):
    """The ground truth, read as the evaluation's own."""
    return read_panoptic_ground_truth(made.panoptic, made.panoptic_maps)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_pictures(monkeypatch):
    """The reader gives the numbers of the images alone, in no time."""

    def coco_dataset(config, training):
        for first in range(1, IMAGES + 1, config.images_per_batch):
            ids = range(first, min(first + config.images_per_batch, IMAGES + 1))
            yield {"image_id": tf.constant(list(ids), tf.int64)}

    monkeypatch.setattr(evaluate_model, "coco_dataset", coco_dataset)


@pytest.fixture
def config(made, known):
    """A function of the kinds of ground truth that gives a DataConfig with them."""

    def make(*kinds):
        names = {"panoptic": ("panoptic", "panoptic_maps")}
        keys = [key for kind in kinds for key in names.get(kind, (kind,))]
        return DataConfig(
            **{key: str(getattr(made, key)) for key in ("images", *keys)},
            images_per_batch=3,
            resize=ResizeConfig(min_size=SIDE, max_size=SIDE),
            categories=known.things,
            stuff=known.stuff,
        )

    return make


class Knowing:
    """Gives each image's true segments and pixels, but for the segments of `missed`, {image id: segment id}; its boxes
    are right and its masks coarse. Without instances it finds stuff alone."""

    def __init__(self, made, known, missed=(), instances=True):
        self.made, self.known, self.missed, self.instances = made, known, dict(missed), instances
        self.outputs = {"boxes", "masks"} if instances else set()
        self.outputs.add("semantic_logits")

    def gives(self, *names):
        return self.outputs.issuperset(names)

    def detect_batch(self, batch):
        return [self._found(image_id) for image_id in batch["image_id"].numpy().tolist()]

    def _found(self, image_id):
        categories = {one.id: one for one in self.known.things + self.known.stuff}
        segment_map, segments = self.known.segment_map(image_id), []
        for row in self.known.segments(image_id):
            category = categories[row["category_id"]]
            is_thing = category in self.known.things
            if row["id"] == self.missed.get(image_id) or (is_thing and not self.instances):
                segment_map[segment_map == row["id"]] = 0
                continue
            segments.append(Segment(row["id"], category, is_thing, None, 1, [0, 0, 1, 1]))
        things = [row for row in self.known.segments(image_id) if categories[row["category_id"]] in self.known.things]
        things = things if self.instances else []
        boxes = np.array([row["bbox"] for row in things]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        classes = [[one.id for one in self.known.things].index(row["category_id"]) + 1 for row in things]
        masks = [_coarse(self.known.segment_map(image_id) == row["id"], row["bbox"]) for row in things]
        masks = np.reshape(masks, (-1, 28, 28)) if self.instances else None
        pixels = SemanticMap(self._pixels(image_id), None, self.known.stuff, None)
        found = Detections(
            boxes, np.ones(len(things)), classes, segment_map.shape, self.known.things, masks, semantics=pixels
        )
        found.panoptic = Panoptic(segment_map, segments)
        return found

    def _pixels(self, image_id):
        """From the label map: 21 and more are stuff, all else things."""
        values = np.asarray(Image.open(self.made.semantic_maps / f"{image_id:06d}.png")).astype(int)
        return np.where(values > 20, values - 20, 0).astype(np.uint8)


def _coarse(mask, box):
    x, y, width, height = map(int, box)
    crop = Image.fromarray(mask[y : y + height, x : x + width] * np.uint8(255))
    return np.asarray(crop.resize((28, 28), Image.Resampling.BILINEAR)) / 255


def thing_of(known, image_id):
    return next(row for row in known.segments(image_id) if row["category_id"] in {one.id for one in known.things})


def test_the_truth_itself_scores_one_and_comes_back_in_cocos_format(made, known, config, tmp_path):
    results, detections = evaluate(Knowing(made, known), config("panoptic"), progress=False, out=tmp_path / "out")
    assert (results.images, results.panoptic.images, results.semantic.images) == (IMAGES,) * 3
    assert results.panoptic.all["PQ"] == results.panoptic.things["PQ"] == results.panoptic.stuff["PQ"] == 1
    assert results.semantic.mIoU == results.semantic.pixel_accuracy == 1
    assert results.bbox["AP"] > 0.99 and results.notes == results.skipped == []
    folder = tmp_path / "out"
    written = ["detections.json", "panoptic", "panoptic.json", "results.json"]
    assert sorted(path.name for path in folder.iterdir()) == written
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results.to_json()))
    assert json.loads((folder / "detections.json").read_text()) == json.loads(json.dumps(detections))
    again = read_panoptic_ground_truth(folder / "panoptic.json", folder / "panoptic")
    assert (again.things, again.stuff, again.skipped) == (known.things, known.stuff, [])
    for image_id in known.annotation_indices:
        np.testing.assert_array_equal(again.segment_map(image_id), known.segment_map(image_id))
    assert (folder / "panoptic" / "000000000001.png").is_file()


def test_images_whose_ids_are_names_come_back_by_their_names(made, known, config, tmp_path):
    content = json.loads(made.panoptic.read_text())
    for record in [*content["images"], *content["annotations"]]:
        key = "id" if "segments_info" not in record else "image_id"
        record[key] = f"scene/{record[key]}"
    (tmp_path / "named.json").write_text(json.dumps(content))
    truth = read_panoptic_ground_truth(tmp_path / "named.json", made.panoptic_maps)
    numbers = dict(zip(truth.annotation_indices, known.annotation_indices, strict=True))

    class KnowingByName(Knowing):
        def _pixels(self, image_id):
            return super()._pixels(numbers[image_id])

    data = dataclasses.replace(config("panoptic"), panoptic=str(tmp_path / "named.json"))
    results, _ = evaluate(KnowingByName(made, truth), data, progress=False, out=tmp_path / "out")
    assert results.panoptic.all["PQ"] == results.semantic.mIoU == 1 and results.bbox["AP"] > 0.99
    written = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    named = {record["id"] for record in content["images"]}
    assert {record["id"] for record in written["images"]} == named
    assert {record["image_id"] for record in written["annotations"]} == named
    assert {record["image_id"] for record in json.loads((tmp_path / "out" / "detections.json").read_text())} == named
    again = read_panoptic_ground_truth(tmp_path / "out" / "panoptic.json", tmp_path / "out" / "panoptic")
    for image_id in truth.annotation_indices:
        np.testing.assert_array_equal(again.segment_map(image_id), truth.segment_map(image_id))


def test_a_missed_thing_counts_in_its_class_alone(no_pictures, made, known, config):
    missed = thing_of(known, 2)
    results, _ = evaluate(Knowing(made, known, {2: missed["id"]}), config("panoptic"), progress=False)
    for row in results.panoptic.per_class:
        assert row["fp"] == 0 and row["fn"] == (row["id"] == missed["category_id"])
    assert results.panoptic.stuff["PQ"] == 1 > results.panoptic.things["PQ"]


def test_things_of_a_panoptic_json_are_ground_truth_for_boxes_and_masks(made, known, config):
    """instances.json has the same things as run lengths that the generator wrote."""
    figures = []
    for kinds in (("panoptic",), ("annotations", "panoptic"), ("annotations",)):
        results, _ = evaluate(Knowing(made, known), config(*kinds), progress=False)
        assert 0 < results.segm["AP"] < 0.99
        figures.append((results.images, results.bbox, results.segm, results.per_class))
    assert figures[0] == figures[1] == figures[2]


def test_a_box_and_an_area_that_the_json_lacks_are_the_pixels(no_pictures, made, known, config, tmp_path):
    data = json.loads(made.panoptic.read_text())
    for record in data["annotations"]:
        for segment in record["segments_info"]:
            del segment["bbox"], segment["area"]
    (tmp_path / "bare.json").write_text(json.dumps(data))
    bare = dataclasses.replace(config("panoptic"), panoptic=str(tmp_path / "bare.json"))
    full, _ = evaluate(Knowing(made, known), config("panoptic"), progress=False)
    results, _ = evaluate(Knowing(made, known), bare, progress=False)
    assert (results.bbox, results.segm) == (full.bbox, full.segm)


def test_label_maps_give_the_pixels_the_same_figures(no_pictures, made, known, config):
    blurred = Knowing(made, known)
    blurred._pixels = lambda image_id: np.roll(Knowing._pixels(blurred, image_id), 3, axis=0)
    segments, _ = evaluate(blurred, config("panoptic"), progress=False)
    maps, detections = evaluate(blurred, config("annotations", "semantic_maps"), progress=False)
    assert maps.semantic == segments.semantic and 0.3 < maps.semantic.mIoU < 0.99
    assert maps.panoptic is None and maps.segm == segments.segm
    assert maps.notes == ["No panoptic quality: set data.val.panoptic and data.val.panoptic_maps."]


def test_a_model_of_stuff_alone_is_asked_for_no_things(no_pictures, made, known, config):
    model = Knowing(made, known, instances=False)
    results, detections = evaluate(model, config("panoptic"), progress=False)
    assert results.bbox is results.segm is None and results.per_class == detections == results.notes == []
    assert results.panoptic.all == {"PQ": 1, "SQ": 1, "RQ": 1, "n": results.panoptic.stuff["n"]}
    assert results.panoptic.things["n"] == 0 and results.semantic.mIoU == 1


def test_maps_alone_are_enough_for_it(made, known, config):
    model = Knowing(made, known, instances=False)
    results, _ = evaluate(model, config("semantic_maps"), progress=False)
    assert (results.images, results.semantic.mIoU, results.panoptic, results.bbox) == (IMAGES, 1, None, None)


def test_images_that_only_one_of_the_jsons_has_are_named(no_pictures, made, known, config, tmp_path):
    data = json.loads(made.panoptic.read_text())
    data["images"], data["annotations"] = data["images"][:-1], data["annotations"][:-2]
    (tmp_path / "less.json").write_text(json.dumps(data))
    less = dataclasses.replace(config("annotations", "panoptic"), panoptic=str(tmp_path / "less.json"))
    results, _ = evaluate(Knowing(made, known), less, progress=False)
    assert (results.images, results.panoptic.images, results.panoptic.all["PQ"]) == (IMAGES, IMAGES - 2, 1)
    unlisted, without = sorted(results.panoptic.skipped, key=lambda sentence: "annotation" in sentence)
    assert "image 4 is left out: it isn't in there" in unlisted
    assert "image 3 is left out: it has no annotation" in without


@pytest.mark.parametrize(
    ("instances", "kinds", "words"),
    [
        (
            False,
            ("annotations",),
            "no classes of pixels, and those are all that the model finds: set data.val.pan",
        ),
        (True, ("semantic_maps",), "no instances, and those are all that the model finds: set data.val.annotations"),
        (True, (), "nothing to evaluate on: set data.val.annotations"),
    ],
)
def test_ground_truth_that_a_model_has_no_use_for_is_refused(made, known, config, instances, kinds, words):
    model = Knowing(made, known, instances=instances)
    if instances:
        model.outputs.remove("semantic_logits")
    with pytest.raises(UserError, match=words):
        evaluate(model, config(*kinds), progress=False)


def test_stuff_that_the_json_lacks_is_refused_before_anything_is_detected(made, known, config):
    wrong = dataclasses.replace(config("panoptic"), stuff=[dataclasses.replace(known.stuff[0], id=77)])
    with pytest.raises(UserError, match="no stuff category 77"):
        evaluate(Knowing(made, None), wrong, progress=False)


def test_hosts_that_share_the_images_end_up_with_all_of_them(made, known, config, monkeypatch):
    model, sent = Knowing(made, known, {2: thing_of(known, 2)["id"]}), []
    truth = read_ground_truth(config("panoptic"), known.things, True, True)
    whole, first, second = (EvaluatedImages(truth) for _ in range(3))
    for image_id in known.annotation_indices:
        whole.add(image_id, model._found(image_id))
        (first if image_id < 3 else second).add(image_id, model._found(image_id))
    monkeypatch.setattr(evaluate_model, "gather_from_workers", lambda strategy, data: sent.append(data) or [data])
    first.merge(None)
    monkeypatch.setattr(evaluate_model, "gather_from_workers", lambda strategy, data: [sent.pop(0), data])
    second.merge(None)
    assert not sent
    assert second.panoptic_results() == whole.panoptic_results()
    assert second.semantic_results() == whole.semantic_results()
    assert second.annotations_from_segments() == whole.annotations_from_segments()
    assert second.image_ids() == whole.image_ids()
    assert sorted(second.detections(), key=str) == sorted(whole.detections(), key=str)


def test_the_callback_logs_them(no_pictures, made, known, config, capsys):
    callback = CocoAP(config("panoptic"))
    callback.set_model(Knowing(made, known))
    callback.set_params({"epochs": 1})
    logs = {}
    callback.on_epoch_end(0, logs)
    assert [logs[f"val_{name}"] for name in ("PQ", "PQ_things", "PQ_stuff", "mIoU")] == [1, 1, 1, 1]
    assert logs["val_segm_AP"] == callback.results.segm["AP"]
    assert "val_PQ: 1.000, val_mIoU: 1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outputs", "kinds", "figure"),
    [
        ("boxes masks", "annotations", "val_segm_AP"),
        ("boxes", "annotations", "val_bbox_AP"),
        ("boxes masks semantic_logits", "panoptic", "val_PQ"),
        ("boxes masks semantic_logits", "annotations panoptic", "val_PQ"),
        ("boxes masks semantic_logits", "annotations semantic_maps", "val_segm_AP"),
        ("boxes masks semantic_logits", "semantic_maps", "val_mIoU"),
        ("boxes semantic_logits", "panoptic", "val_bbox_AP"),
        ("semantic_logits", "panoptic", "val_mIoU"),
        ("semantic_logits", "semantic_maps", "val_mIoU"),
    ],
)
def test_a_model_is_judged_by_the_figure_of_all_that_it_finds(made, known, outputs, kinds, figure):
    model = Knowing(made, known)
    model.outputs = set(outputs.split())
    data = DataConfig(**dict.fromkeys(kinds.split(), "there"))
    assert main_metric(model, data) == figure


def test_without_labels_in_the_batches_a_model_is_judged_by_its_instances(made, known):
    data = DataConfig(panoptic="there", semantic=False)
    assert main_metric(Knowing(made, known), data) == "val_segm_AP"


def test_main_figures_are_in_the_logs_under_their_names(no_pictures, made, known, config):
    """EarlyStopping and the best checkpoint would wait for a name that never comes."""
    for instances, name in ((True, "val_PQ"), (False, "val_mIoU")):
        callback = CocoAP(config("panoptic"), verbose=0)
        callback.set_model(Knowing(made, known, instances=instances))
        callback.set_params({"epochs": 1})
        logs = {}
        callback.on_epoch_end(0, logs)
        assert name in logs
