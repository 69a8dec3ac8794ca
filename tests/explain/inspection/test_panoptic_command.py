"""`mrcnn-tf inspect` on a generated panoptic dataset, with untrained tiny models of both kinds."""

import functools
import json

import command
import pytest
import yaml
from tiny import tiny_config

from mrcnn_tf.common.categories import read_panoptic_categories
from mrcnn_tf.config.settings import PanopticConfig, SemanticHeadConfig
from mrcnn_tf.datasets.panoptic_shapes import make_panoptic_shapes
from mrcnn_tf.model.mask_rcnn import MaskRCNN

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_panoptic_shapes(tmp_path_factory.mktemp("shapes"), 3, 3, 64)


@pytest.fixture(scope="module")
def config_file(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "shapes.yaml"
    val = {key: str(getattr(made, key)) for key in ("images", "panoptic", "panoptic_maps")}
    path.write_text(yaml.safe_dump({"base": "panoptic_r50_fpn", "data": {"val": val, "train": val}}))
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))


def tiny_model(made, path, instances):
    config = tiny_config()
    config.categories, config.stuff = read_panoptic_categories(made.panoptic)
    config.semantic_head, config.panoptic = SemanticHeadConfig(channels=32), PanopticConfig(0.05, 0.5, 16)
    if not instances:
        config.box_head = config.mask_head = None
    MaskRCNN.from_settings(config, seed=0).save(path)
    return path


call = functools.partial(command.call, "inspect")


def test_a_panoptic_dataset_needs_no_annotations(config_file, tmp_path):
    text = call(config_file, "--out", tmp_path / "r.html")
    assert "3 images, " in text and "4 classes; 3 images shown." in text
    assert "Pixels: things " in text and "grass" in text and "without a class" in text


def test_a_panoptic_model_is_judged_by_segments_and_instances(config_file, made, tmp_path):
    weights = tiny_model(made, tmp_path / "tiny.keras", instances=True)
    text = call(config_file, "--weights", weights, "--out", tmp_path / "r.html")
    assert "Per class, panoptic" in text and "classes of pixels" in text and "AP50 that each kind of error" in text


def test_a_semantic_head_by_itself_has_a_report_and_no_diagnosis(config_file, made, tmp_path, capsys):
    weights = tiny_model(made, tmp_path / "tiny.keras", instances=False)
    figures = json.loads(call(config_file, "--weights", weights, "--out", tmp_path / "r.html", "--json"))
    assert set(figures["model"]) == {"results"} and figures["model"]["results"]["bbox"] is None
    assert figures["model"]["results"]["panoptic"]["stuff"]["n"] > 0 and figures["statistics"]["pixels"]["images"] == 3
    capsys.readouterr()
    call("--image", made.images / "000001.png", "--weights", weights, "--out", tmp_path / "p.png", status=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "model.box_head=null" in lines[0] and "mrcnn-tf predict" in lines[0]


def test_segments_are_no_ground_truth_for_a_diagnosis(made, tmp_path, capsys):
    weights = tiny_model(made, tmp_path / "tiny.keras", instances=True)
    photo = made.images / "000001.png"
    call("--image", photo, "--weights", weights, "--ground-truth", made.panoptic, "--out", tmp_path / "p.png", status=2)
    assert "has panoptic segments and no instances" in capsys.readouterr().err
