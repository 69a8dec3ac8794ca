"""The training config of an imported model: where it lies beside a file of weights, and which library's it is."""

import pathlib
import re

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.detectron2_config import is_detectron2, read_detectron2_config
from mrcnn_tf.weights.foreign_yaml import parse_yaml, read_text
from mrcnn_tf.weights.mmdetection_config import read_mmdetection_file

# How a text begins a line that only such a config has.
DETECTRON2 = re.compile(r"^((MODEL|INPUT|SOLVER|DATALOADER|_BASE_):|model:\n\s+_target_:)", re.MULTILINE)
MMDETECTION = re.compile(r"^(model\s*=\s*dict\(|_base_\s*=)", re.MULTILINE)
LAZY_SOURCE = re.compile(r"^\s*(from|import) detectron2\b", re.MULTILINE)
# A config's library -> the formats of weights that it trains, or reads.
TENSORS = {"detectron2": ("detectron2", "caffe2"), "mmdetection": ("mmdetection",)}
# mmdetection's names for what it saves in its folder of training, which has the config too.
MMDETECTION_FILES = re.compile(r"(epoch_\d+|iter_\d+|latest|best_.*)\.pth")


def read_source_config(path, library=None):
    """The `SourceConfig` of a file, told by its content: detectron2's YAML or mmdetection's text.

    Nothing of it is executed. UserError if it can't be read, is neither, is of a model that this package can't be, or
    isn't of `library`, whose tensors the weights are (detectron2, caffe2, mmdetection, ...); None: of any.
    """
    config = _read(path)
    if library is not None and library not in TENSORS[config.library]:
        raise UserError(
            f"{path} is a config of {config.library}, and the weights have {library}'s names: give the config that "
            "belongs to them, or --source-config none."
        )
    return config


def _read(path):
    text, name = read_text(path), str(path)
    if LAZY_SOURCE.search(text) and not DETECTRON2.search(text):
        raise UserError(
            f"{name} is a program that makes a config of detectron2, and programs aren't run: give the config.yaml "
            "that training wrote into its output folder, or what LazyConfig.save writes."
        )
    if pathlib.Path(path).suffix in (".py", ".json") or MMDETECTION.search(text):
        return read_mmdetection_file(path)
    tree = parse_yaml(text, name)
    if is_detectron2(tree):
        return read_detectron2_config(path)
    if isinstance(tree, dict) and isinstance(tree.get("model"), dict) and "type" in tree["model"]:
        return read_mmdetection_file(path)
    raise UserError(
        f"{name} is no config of detectron2 (YAML with a section MODEL) or mmdetection (Python with model = dict()): "
        "give the file that training wrote, config.yaml or NAME.py."
    )


def find_companion(weights, library):
    """The path of the config that training left beside a file of weights; None if there is none.

    UserError if it may be one of several.

    Args:
        weights: the path of the file.
        library: the library whose tensors it holds, "detectron2" or "mmdetection".
    """
    weights = pathlib.Path(weights)
    if library == "detectron2" and weights.suffix != ".pkl":  # which training doesn't write: it's a published file
        path = weights.with_name("config.yaml")  # as DefaultTrainer names it in its OUTPUT_DIR
        return path if _begins_as(path, DETECTRON2) else None
    if library != "mmdetection" or not MMDETECTION_FILES.fullmatch(weights.name):
        return None
    candidates = _configs(weights.parent, "*.py") or _configs(weights.parent, "*/vis_data/config.py")
    if len(candidates) > 1:
        listed = ", ".join(str(path.relative_to(weights.parent)) for path in candidates)
        raise UserError(
            f"Beside {weights} are several configs ({listed}): name the one of these weights by --source-config."
        )
    return candidates[0] if candidates else None


def _configs(folder, pattern):
    return sorted(path for path in folder.glob(pattern) if _begins_as(path, MMDETECTION))


def _begins_as(path, pattern):
    """Whether a file is a config by its text. One that can't be read is none: it may be anything's."""
    try:
        return bool(pattern.search(read_text(path)))
    except UserError:
        return False
