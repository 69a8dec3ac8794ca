"""Published models: what is said of them, and what happens when their file is absent or another one."""

import hashlib

import pytest

import mrcnn_tf
from mrcnn_tf.config.load import list_config_names, load_config
from mrcnn_tf.weights import presets
from mrcnn_tf.weights.pretrained import read_pretrained


def test_every_preset_has_what_a_user_needs():
    found = mrcnn_tf.list_presets()
    assert len({preset.name for preset in found}) == len({preset.file for preset in found}) == len(found) > 30
    for preset in found:
        assert preset.page.startswith("https://") and preset.entry and preset.licence
        assert preset.config is None or preset.config in list_config_names()
        if preset.config:
            model = load_config(preset.config).model
            assert bool(model.mask_head) == ("mask" in preset.name or "panoptic" in preset.name)
            assert bool(model.semantic_head) == bool(preset.pq) == ("panoptic" in preset.name)
            assert bool(model.keypoint_head) == bool(preset.keypoint_ap) == ("keypoint" in preset.name)


def test_an_absent_file_says_what_to_download_where(monkeypatch, tmp_path):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path))
    with pytest.raises(mrcnn_tf.UserError) as error:
        read_pretrained("torchvision_maskrcnn_resnet50_fpn")
    for words in ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "COCO_V1", "https://", str(tmp_path / "weights")):
        assert words in str(error.value)


def test_a_file_with_another_hash_is_refused_and_the_right_one_found(monkeypatch, tmp_path):
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    content = b"not what was published"
    path = tmp_path / "weights" / "model-x.pth"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()[:8]
    preset = presets.Preset("x", "https://page", "entry", path.name, "MIT", digest)
    assert presets.preset_file(preset) == path
    path.write_bytes(content + b"!")
    with pytest.raises(mrcnn_tf.UserError, match="isn't the file that was published"):
        presets.preset_file(preset)
