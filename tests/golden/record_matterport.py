"""Records outputs of matterport's Mask R-CNN with made-up weights, run in a copy that was changed for TensorFlow 2.

The files in this folder were made with Python 3.11, tf_keras 2.20.1, TensorFlow 2.20.0 and numpy 2.4.6 by

    PYTHONPATH=tests:FOLDER python tests/golden/record_matterport.py

where FOLDER holds the package `mrcnn` (model.py, config.py, utils.py) with its calls of TensorFlow 1 renamed; the
arithmetic is the original's.

`matterport_BACKBONE.json` has the datasets of a file that `save_weights` wrote, {name: shape}, in the file's order.
`matterport_BACKBONE.npz` has, for image i of IMAGES, `img{i}/STAGE`:

    C2..C5, P2..P6      sampled maps of the molded image: SIDE x SIDE, the image in the middle of black
    rpn_logits, rpn_deltas   sampled: [anchors], foreground less background, and [anchors, 4], all levels in a row
    rois                [1000, 4] float32 (y1, x1, y2, x2), normalized: the proposals
    class_logits, box_deltas   [HEAD_ROIS, 81] sampled and [HEAD_ROIS, 81, 4] sampled, of the first proposals
    detections          [n, 6] float32 (y1, x1, y2, x2, class, score), normalized
    boxes               [n, 4] float32 (x1, y1, x2, y2) of the detections in the image's pixels, before rounding
    masks               [<=MASKS, 28, 28] uint16: probability * 65535 of the detected class

A sampled stage is `made_up.sample(array, SAMPLES)`; `STAGE_max` is the whole array's largest magnitude.
"""

import json
import pathlib
import tempfile

import h5py
import numpy as np
import tf_keras
from golden import made_up, made_up_matterport
from mrcnn import config, model, utils

FOLDER = pathlib.Path(__file__).parent
SIDE, SEED, SAMPLES, HEAD_ROIS, MASKS = 256, 21, 1000, 100, 12
IMAGES = {"resnet50": [[256, 256, 31], [256, 192, 32], [160, 256, 33]], "resnet101": [[256, 256, 34]]}
LAST = {"resnet50": "f", "resnet101": "w"}


def build(backbone):
    class Small(config.Config):
        NAME, BACKBONE, NUM_CLASSES, IMAGES_PER_GPU = "coco", backbone, 81, 1
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = SIDE

    with tempfile.TemporaryDirectory() as folder:
        network = model.MaskRCNN("inference", Small(), folder)
        network.keras_model.save_weights(f"{folder}/weights.h5")
        shapes = {}
        with h5py.File(f"{folder}/weights.h5") as file:
            file.visititems(
                lambda name, item: shapes.update({name: list(item.shape)}) if hasattr(item, "shape") else None
            )
    weights = made_up_matterport.weights(shapes, SEED)
    variables = {f"{layer.name}/{w.name}": w for layer in network.keras_model.layers for w in layer.weights}
    assert variables.keys() == weights.keys()
    tf_keras.backend.batch_set_value([(variables[name], weights[name]) for name in weights])
    return network, shapes


def run(network, backbone, image):
    keras_model = network.keras_model
    taps = {
        f"C{level}": f"res{level}{last}_out" for level, last in zip(range(2, 6), f"cd{LAST[backbone]}c", strict=True)
    }
    taps |= {f"P{level}": f"fpn_p{level}" for level in range(2, 7)}
    taps |= {"rpn_deltas": "rpn_bbox", "rois": "ROI"}
    taps |= {"class_logits": "mrcnn_class_logits", "box_deltas": "mrcnn_bbox"}
    taps |= {"detections": "mrcnn_detection", "masks": "mrcnn_mask"}
    tensors = {name: keras_model.get_layer(layer).output for name, layer in taps.items()}
    rpn = keras_model.get_layer("rpn_model")
    levels = [rpn.get_output_at(call)[0] for call in range(-5, 0)]
    tensors["rpn_logits"] = tf_keras.layers.Concatenate(axis=1)(levels)
    tapped = tf_keras.Model(keras_model.inputs, list(tensors.values()))
    molded, metas, windows = network.mold_inputs([image])
    anchors = network.get_anchors(molded[0].shape)[None]
    outputs = tapped.predict([molded, metas, anchors], verbose=0)
    stages = {name: output[0] for name, output in zip(tensors, outputs, strict=True)}
    stages["rpn_logits"] = stages["rpn_logits"] @ [-1, 1]
    stages["detections"] = stages["detections"][stages["detections"][:, 4] > 0]
    window = utils.norm_boxes(windows[0], molded[0].shape[:2])
    offset, scale = np.tile(window[:2], 2), np.tile(window[2:] - window[:2], 2)
    inside = (stages["detections"][:, :4] - offset) / scale
    height, width = image.shape[:2]
    y1, x1, y2, x2 = (inside * [height - 1, width - 1, height - 1, width - 1] + [0, 0, 1, 1]).T
    stages["boxes"] = np.stack([x1, y1, x2, y2], axis=1)
    return stages


def reduce(stages):
    arrays, count = {}, len(stages["detections"])
    for name, array in stages.items():
        if name in ("rois", "detections", "boxes"):
            arrays[name] = np.float32(array)
        elif name == "masks":
            shown = np.arange(min(count, MASKS))
            own = array[shown, :, :, stages["detections"][shown, 4].astype(int)]
            arrays[name] = np.round(own * 65535).astype(np.uint16)
        else:
            whole = array[:HEAD_ROIS] if name in ("class_logits", "box_deltas") else array
            arrays[name] = made_up.sample(whole, SAMPLES)
            arrays[f"{name}_max"] = np.abs(whole).max()
    return arrays


def main():
    for backbone, images in IMAGES.items():
        tf_keras.backend.clear_session()
        network, shapes = build(backbone)
        arrays = {}
        for index, image in enumerate(images):
            stages = run(network, backbone, made_up.image(*image))
            report(stages)
            arrays |= {f"img{index}/{name}": array for name, array in reduce(stages).items()}
        np.savez_compressed(FOLDER / f"matterport_{backbone}.npz", **arrays)
        rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in shapes.items())
        (FOLDER / f"matterport_{backbone}.json").write_text("{\n" + rows + "\n}\n")


def report(stages):
    for name, array in stages.items():
        print(f"{name:12} {array.shape!s:20} spread {array.std():.3g}, largest {np.abs(array).max():.3g}")
    found = stages["detections"]
    print(f"scores {np.round(np.sort(found[:, 5])[::10], 3)}, classes {len(set(found[:, 4]))}")


if __name__ == "__main__":
    main()
