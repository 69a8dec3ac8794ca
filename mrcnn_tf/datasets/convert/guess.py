"""What format a file or folder seems to have, for those who chose another one."""

import pathlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.reading import BrokenFile, read_json

FEW = 20  # files looked into


def refuse_other(source, chosen, problems=()):
    """Raises the UserError for a source in which nothing of the chosen format was found.

    Args:
        source: file or folder.
        chosen: the subcommand that was used, such as "labelme".
        problems: what was noted on the way; a broken file explains more than a guess.
    """
    broken = [problem.message for problem in problems if problem.kind == "broken_file"]
    if broken:
        raise UserError(broken[0])
    path = pathlib.Path(source)
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{path} is empty: give the folder that holds the annotations.")
    found = guess(path)
    if found == "coco":
        raise UserError(f"{path} is COCO's already: train on it as it is, or see `mrcnn-tf convert coco-to --help`.")
    if found and found != chosen:
        raise UserError(f"{path} looks like another format: try `mrcnn-tf convert {found} {_quoted(path)}`.")
    raise UserError(f"{path} holds nothing of the kind that `mrcnn-tf convert {chosen} --help` describes.")


def guess(path):
    """The subcommand that a file or folder would be for, "coco" for COCO's json, None if it isn't known."""
    path = pathlib.Path(path)
    if path.is_file():
        return _of_file(path)
    if (path / "Annotations").is_dir() or (path / "SegmentationObject").is_dir():
        return "voc"
    if any(path.glob("*.yaml")) or any(path.rglob("labels/**/*.txt")):
        return "yolo"
    for file in _some(path.rglob("*.json")):
        if found := _of_file(file):
            return found
    if any(path.rglob("*.xml")):
        return "voc"
    if any(path.rglob("masks/*.png")) or any(path.rglob("*mask*.png")):
        return "masks"
    if any(path.glob("via*.csv")):
        return "via"
    return "label-maps" if any(path.rglob("*.png")) else None


def _of_file(path):
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return "yolo"
    if suffix == ".xml":
        return "voc"
    if suffix == ".csv":
        return "via"
    try:
        content = read_json(path)
    except BrokenFile:
        return None
    if not isinstance(content, dict):
        return None
    if "annotations" in content and "images" in content:
        return "coco"
    if "shapes" in content:
        return "labelme"
    entries = content.get("_via_img_metadata", content)
    if isinstance(entries, dict) and any(isinstance(one, dict) and "regions" in one for one in entries.values()):
        return "via"
    return None


def _some(files):
    for _, file in zip(range(FEW), files, strict=False):
        yield file


def _quoted(path):
    return f'"{path}"' if " " in str(path) else str(path)
