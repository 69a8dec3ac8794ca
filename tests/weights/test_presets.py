"""Published models: what is said of them, how they are found, and which of them a file is."""

import hashlib
import pathlib
import urllib.request

import pytest

import mrcnn_tf
from mrcnn_tf.config.load import list_config_names, load_config
from mrcnn_tf.weights import presets

ALL = presets.all_presets()


def test_every_preset_has_what_a_user_needs():
    found = mrcnn_tf.list_presets()
    assert len({preset.name for preset in found}) == len({preset.address for preset in found}) == len(found) > 150
    assert len({presets._place(preset) for preset in ALL}) == len(ALL)
    for preset in ALL:
        assert preset.page.startswith("https://") and preset.licence
        assert preset.address.startswith("https://") and preset.address.endswith("/" + preset.file)
        assert preset.refused or bool(preset.config) == bool(preset.classes)
        assert bool(preset.config) == bool(preset.box_ap or preset.mask_ap) or preset.publisher == "matterport"


def test_hashes_are_those_in_the_names():
    for preset in ALL:
        if preset.digest:
            assert preset.file.rpartition(".")[0].endswith(preset.digest)
            assert (preset.algorithm, len(preset.digest)) in (("sha256", 8), ("md5", 6))
    without = {preset.publisher for preset in ALL if not preset.digest}
    assert without == {"detectron2", "Detectron", "matterport"}
    assert all(preset.digest for preset in ALL if preset.publisher in ("torchvision", "mmdetection"))
    assert all(preset.digest or "ImageNet" in preset.address for preset in ALL if preset.publisher == "detectron2")


def _is_dilated(preset):
    return "model.features=C5" in preset.settings


@pytest.mark.parametrize(
    ("config", "is_dilated"),
    sorted({(each.config, _is_dilated(each)) for each in ALL if each.config and each.settings}),
)
def test_the_settings_are_those_of_a_model_of_that_kind(config, is_dilated):
    found = [each for each in ALL if (each.config, _is_dilated(each)) == (config, is_dilated)]
    settings = [setting for preset in found for setting in preset.settings if setting.startswith("model.")]
    model = load_config(config, settings).model
    for name in [preset.name for preset in found]:
        assert bool(model.mask_head) == ("mask" in name), name
        assert bool(model.keypoint_head) == ("keypoint" in name), name
        assert model.features == ("C4" if "_c4" in name.lower() else "C5" if "dc5" in name else "FPN"), name


def test_the_configs_are_those_of_models_of_that_kind():
    for preset in ALL:
        assert not preset.config or preset.config in list_config_names()
        if preset.config and not preset.settings:
            for part in ("mask", "panoptic", "keypoint", "C4", "DC5", "X_101"):
                assert (part in preset.name) == (part in preset.config), preset.name
    for preset in ALL:
        assert bool(preset.pq) == ("panoptic" in preset.name and not preset.refused)
        assert bool(preset.keypoint_ap) == ("keypoint" in preset.name)
        assert {setting.partition("=")[0] for setting in preset.settings if setting.startswith("file.")} <= {
            "file.pixel_order"
        }


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        ("detectron2_mask_rcnn_R_50_FPN_400ep_LSJ", (1, "person"), (90, "toothbrush"), 80),
        ("torchvision_maskrcnn_resnet50_fpn", (1, "person"), (90, "toothbrush"), 90),
        ("detectron_keypoint_rcnn_R_50_FPN_1x", (1, "person"), (1, "person"), 1),
        ("detectron2_cityscapes_mask_rcnn_R_50_FPN", (24, "person"), (33, "bicycle"), 8),
        ("detectron2_voc_faster_rcnn_R_50_C4", (1, "aeroplane"), (20, "tvmonitor"), 20),
        ("detectron2_lvis_mask_rcnn_R_50_FPN_1x", (1, "acorn"), (1230, "zucchini"), 1230),
        ("mmdetection_mask_rcnn_r50_fpn_sample1e-3_mstrain_1x_lvis_v1", (1, "aerosol_can"), (1203, "zucchini"), 1203),
    ],
)
def test_classes(name, first, last, count):
    classes = presets.find_preset(name).categories()
    assert len(classes) == count
    assert [(each.id, each.name) for each in (classes[0], classes[-1])] == [first, last]


def test_a_backbone_has_no_classes():
    assert presets.find_preset("torchvision_resnet50").categories() is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "torchvision_maskrcnn_resnet50_fpn"),
        ("maskrcnn_resnet50_fpn_coco-bf2d0c1e", "torchvision_maskrcnn_resnet50_fpn"),
        ("maskrcnn_resnet50_fpn_coco", "torchvision_maskrcnn_resnet50_fpn"),
        ("https://download.pytorch.org/models/resnet50-0676ba61.pth", "torchvision_resnet50"),
        ("model_final_da7b4c.pkl", "detectron2_scratch_mask_rcnn_R_50_FPN_9x_gn"),
        ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "detectron2_R_50"),
        ("mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth", "mmdetection_mask_rcnn_r50_fpn_1x"),
        ("R-50.pkl", None),
        ("model_final.pkl", None),
        ("model_final", None),
        ("resnet50", None),  # there are two of 2022 and of 2015
        ("keypointrcnn_resnet50_fpn_coco", None),
        ("", None),
    ],
)
def test_a_preset_is_found_by_its_files_name_if_no_other_has_it(name, found):
    preset = presets.find_preset(name)
    assert (preset and preset.name) == found


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_known_by_its_name_and_its_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path))
    for place, name in [
        ("model_final_da7b4c.pkl", "detectron2_scratch_mask_rcnn_R_50_FPN_9x_gn"),
        ("mask_rcnn_coco.h5", "matterport_mask_rcnn_coco"),
        ("torchvision/R-50.pkl", "detectron2_R_50_torchvision"),
        ("detectron2/ImageNetPretrained/MSRA/R-50.pkl", "detectron2_R_50"),
        ("weights/detectron_R_50/R-50.pkl", "detectron_R_50"),
        ("weights/detectron_mask_rcnn_R_50_FPN_1x/model_final.pkl", "detectron_mask_rcnn_R_50_FPN_1x"),
        ("MSRA/R-50.pkl", None),  # detectron2's, or Detectron's
        ("R-50.pkl", None),
        ("output/model_final.pkl", None),
        ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", None),  # of another SHA-256: somebody trained it on
        ("model_final_e9d89b.pkl", None),  # a Cascade R-CNN
    ]:
        preset = presets.published_as(_write(tmp_path / place, b"weights"))
        assert (preset and preset.name) == name, place


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_file_is_known_by_its_hash_under_any_name(tmp_path, monkeypatch, algorithm):
    digest = hashlib.new(algorithm, b"weights").hexdigest()[:8]
    name = f"model-{digest}.pth"
    preset = presets.Preset("x", "y", "https://page", "MIT", f"https://{name}", name, algorithm, digest)
    monkeypatch.setattr(presets, "_read_presets", lambda: {"x": preset})
    assert presets.published_as(_write(tmp_path / "mine.pth", b"weights")) == preset
    assert presets.published_as(_write(tmp_path / name, b"weights")) == preset
    assert presets.published_as(_write(tmp_path / "mine.pth", b"others")) is None
    assert presets.published_as(_write(tmp_path / "mine.keras", b"weights")) is None  # isn't even read


def test_a_file_that_is_there_is_no_preset(tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *arguments, **options: pytest.fail("a download"))
    monkeypatch.chdir(tmp_path)
    mine = _write(tmp_path / "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", b"trained on")
    assert presets.locate(mine.name) == (pathlib.Path(mine.name), None)
    assert presets.locate(mine) == (mine, None)
    kept = _write(tmp_path / "weights" / "model_final_14d201.pkl", b"weights")
    found, preset = presets.locate(kept)
    assert (found, preset.name) == (kept, "detectron2_mask_rcnn_R_50_FPN_400ep_LSJ")


def test_a_misspelt_name_is_told_the_next_ones():
    with pytest.raises(
        mrcnn_tf.UserError, match="There is no file torchvision_maskrcn.*a preset such as torchvision_mask"
    ):
        presets.locate("torchvision_maskrcn_resnet50_fpn")


def test_what_cannot_be_imported_is_told_before_it_is_downloaded(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *arguments, **options: pytest.fail("a download"))
    preset = presets.find_preset("detectron2_cascade_mask_rcnn_R_50_FPN_3x")
    assert preset not in mrcnn_tf.list_presets()
    with pytest.raises(
        mrcnn_tf.UserError, match="is a Cascade R-CNN, which has several box heads, so it can't be imported"
    ):
        presets.preset_file(preset)
