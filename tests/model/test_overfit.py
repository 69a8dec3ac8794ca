"""The whole chain learns: two images, seen over and over, end in a mask AP of at least 0.9, and keypoints are found."""

import json

import numpy as np
from PIL import Image, ImageDraw

import mrcnn_tf
from mrcnn_tf.datasets.shapes import Look, make_shapes


def write_dataset(folder):
    """Two pictures of large ellipses and rectangles, annotated as polygons."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for number, centres in enumerate([[(32, 34), (92, 40), (60, 96)], [(36, 90), (90, 92), (64, 32)]], start=1):
        picture = Image.fromarray(generator.integers(0, 40, (128, 128, 3), np.uint8))
        pen = ImageDraw.Draw(picture)
        for index, (x, y) in enumerate(centres):
            width, height = 17 + 3 * index, 24 - 2 * index
            if index % 2:
                corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
            else:
                corners = [(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 40, endpoint=False)]
            points = [(x + width * dx, y + height * dy) for dx, dy in corners]
            pen.polygon(points, fill=(200, 90, 40) if index % 2 else (60, 160, 220))
            low, high = np.min(points, axis=0), np.max(points, axis=0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 7 if index % 2 else 3,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "segmentation": [np.ravel(points).tolist()],
                    "area": float(np.prod(high - low)),
                    "iscrowd": 0,
                }
            )
        picture.save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 128})
    categories = [{"id": 3, "name": "ellipse"}, {"id": 7, "name": "box"}]
    path = folder / "two.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_two_images_are_learnt_by_heart(tmp_path):
    path = write_dataset(tmp_path)
    config = mrcnn_tf.load_config(
        "nuclei_r18_fpn",
        [
            *(f"data.{split}.{key}={value}" for split in ("train", "val") for key, value in
              (("annotations", path), ("images", tmp_path))),
            "data.train.augment={horizontal_flip: 0.0, quarter_turns: false}",
            "model.resize={min_size: 128, max_size: 128}",
            "model.conventions.mask_paste=detectron2",
            "model.backbone.depth=10",
            "model.fpn.channels=32",
            "model.box_head.channels=64",
            "model.mask_head={channels: 32, convs: 2}",
            # So short a training ends differently with the last bits of its arithmetic: half of the RoIs are of objects
            # and the steps are twice as many as it often takes. Of proposals that are worse than those it has seen, the
            # box head knows nothing, so there are no more of them (300 cost 0.36 of mask AP, and box AP more).
            "model.rois={batch_per_image: 64, positive_fraction: 0.5}",
            "model.rpn={pre_nms_train: 200, post_nms_train: 100, pre_nms_test: 200, post_nms_test: 100}",
            "train={steps: 240, epoch_steps: 240, warmup_steps: 20, decay_steps: [200], precision: float32}",
        ],
    )  # fmt: skip
    history = mrcnn_tf.train(config, tmp_path / "run", verbose=0).history
    assert history[-1]["loss"] < 3  # the mean over the run; the figures below are the point
    assert history[-1]["val_segm_AP"] >= 0.9, history[-1]
    assert history[-1]["val_bbox_AP"] >= 0.8, history[-1]


def test_keypoints_of_two_images_are_learnt(tmp_path):
    """From 8.05, the cross-entropy of a guess among 56 * 56 cells, on the way to the keypoints' own."""
    path, images = make_shapes(tmp_path, 2, seed=5, look=Look((1, 2), (0.4, 0.7), (0.2, 0.3), ("arrow",)))
    config = mrcnn_tf.load_config(
        "nuclei_r18_fpn",
        [
            f"data.train={{annotations: {path}, images: {images}}}",
            "data.train.augment={horizontal_flip: 0.0, quarter_turns: false}",
            "model.resize={min_size: 128, max_size: 128}",
            "model.fpn.channels=32",
            "model.box_head.channels=128",
            "model.mask_head=null",
            "model.keypoint_head={convs: 2, channels: 64}",
            "model.rois={batch_per_image: 16, positive_fraction: 0.5}",
            "model.rpn.pre_nms_train=200",
            "model.rpn.post_nms_train=100",
            "data.val={annotations: '', images: ''}",
            "train={steps: 90, epoch_steps: 90, warmup_steps: 20, decay_steps: [80], precision: float32}",
        ],
    )
    history = mrcnn_tf.train(config, tmp_path / "run", verbose=0).history
    assert history[-1]["loss_keypoint"] < 4  # the mean over the run
