"""What travels with an exported model: its classes, its facts, and the files that a TensorFlow Serving reads."""

import dataclasses
import json
import pathlib

import tensorflow as tf

from mrcnn_tf.common.environment import __version__
from mrcnn_tf.common.files import atomic_write

MODELS_CONFIG = """\
# For tensorflow_model_server --model_config_file; base_path is where the server sees this folder.
model_config_list {
  config {
    name: %(name)s
    base_path: %(path)s
    model_platform: "tensorflow"
  }
}
"""

BATCHING_CONFIG = """\
# For tensorflow_model_server --enable_batching --batching_parameters_file.
# One request may hold max_batch_size images; the model runs on up to max_execution_batch_size at once, of one request
# or of several that wait together, which they do for batch_timeout_micros at most.
max_batch_size { value: 64 }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 8 }
batch_timeout_micros { value: 10000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
# Padding would be looked at as a part of the image: send images of unlike sizes to image_bytes. No allowed_batch_sizes:
# the server would fill a batch up to one of them with copies of an image, and each copy costs as much as an image.
pad_variable_length_inputs: false
"""


def labels_document(model, facts):
    """The facts that a client needs to make `Detections` of a model's outputs, and a reader to know what it has.

    Args:
        model: a `MaskRCNN`.
        facts: of the export, such as precision and input_size; they go before those of the model.

    Returns:
        A dictionary of plain JSON: `categories`, each with its `class` 1..K, `id`, `name`, `keypoints` and `skeleton`;
        `stuff`, each with its `class` 1..S, `id` and `name`, [] without a semantic head; `panoptic`, the rules by which
        it is fused with the instances, None where it isn't; `mask_rule` and `keypoint_offset` as in `Detections`;
        `resize`, `pixel_mean` and `pixel_std`, what the model does to an image by itself; `max_detections`, 0 without a
        box head; `score_threshold`; the versions `mrcnn_tf` and `tensorflow`; and `facts`.
    """
    config = model.config
    categories = [{"class": number} | dataclasses.asdict(one) for number, one in enumerate(config.categories, 1)]
    fusible = config.semantic_head and (config.mask_head or not config.box_head)
    stuff = [{"class": number, "id": one.id, "name": one.name} for number, one in enumerate(config.stuff, 1)]
    return {
        "categories": categories,
        "stuff": stuff if config.semantic_head else [],
        "panoptic": dataclasses.asdict(config.panoptic) if fusible else None,
        "mask_rule": config.conventions.mask_paste,
        "keypoint_offset": config.conventions.keypoint_offset,
        "resize": dataclasses.asdict(config.resize),
        "pixel_mean": list(config.pixel_mean),
        "pixel_std": list(config.pixel_std),
        "max_detections": config.detections.max_per_image if config.box_head else 0,
        "score_threshold": config.detections.score_threshold,
        "mrcnn_tf": __version__,
        "tensorflow": tf.__version__,
        **facts,
    }


def labels_text(model):
    """The names of the classes of things, one a line: line n is class n."""
    return "".join(" ".join(category.name.split()) + "\n" for category in model.config.categories)


def write_assets(model, folder, facts):
    """Writes labels.json (`labels_document`) and labels.txt (`labels_text`) into FOLDER/assets.

    Args:
        model, facts: as in `labels_document`.
        folder: of the version that is being written, such as export/1.
    """
    assets = pathlib.Path(folder) / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    document = json.dumps(labels_document(model, facts), indent=1, ensure_ascii=False)
    (assets / "labels.json").write_text(document + "\n", encoding="utf-8")
    (assets / "labels.txt").write_text(labels_text(model), encoding="utf-8")


def write_server_configs(parent, model_name):
    """Writes PARENT/models.config and PARENT/batching.config for tensorflow_model_server; one that exists stays.

    Args:
        parent: the folder of the versions, which the server sees as /models/MODEL_NAME.
        model_name: by which clients ask for the model.
    """
    # A text proto quotes strings as JSON does.
    quoted = {"name": model_name, "path": f"/models/{model_name}"}
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in quoted.items()}
    texts = {"models.config": MODELS_CONFIG % quoted, "batching.config": BATCHING_CONFIG}
    for name, text in texts.items():
        path = pathlib.Path(parent) / name
        if not path.exists():
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
