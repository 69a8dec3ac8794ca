"""The manifest beside TFRecords: the categories, and the inputs, by which a stopped conversion knows how to go on."""

import dataclasses
import glob
import json
import os

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import replaced, sha256
from mrcnn_tf.datasets.image_files import file_sizes

_NUMBERS = "[0-9]" * 5 + "-of-" + "[0-9]" * 5

FORMAT = 1  # of the records; raise it when anything in them changes

# What has to agree for shards to belong together, and how to say that it doesn't.
_IDENTITY = {
    "format": "another version of mrcnn_tf wrote them",
    "json_sha256": "the json has changed",
    "images": "other images can be used",
    "image_bytes": "image files have changed",
    "shards": "their number of shards is another",
}


def describe(index, config, shards):
    """The manifest of records.

    Args:
        index: CocoIndex.
        config: settings.DataConfig that it was made from.
        shards: number of files.

    Returns:
        dict for json.
    """
    files = {os.fsdecode(path) for path in index.image_files.tolist()}
    return {
        "format": FORMAT,
        "json": os.path.realpath(config.annotations),
        "json_bytes": os.path.getsize(config.annotations),
        "json_sha256": sha256(config.annotations),
        "image_folder": os.path.realpath(config.images),
        "images": index.image_ids.size,
        "image_bytes": sum(file_sizes(files)),
        "objects": index.classes.size,
        "shards": shards,
        "categories": [dataclasses.asdict(category) for category in index.categories],
    }


def begin(folder, name, manifest, force):
    """Makes a folder ready for the records of `manifest`: whole shards of the same stay, others are removed by `force`.

    Args:
        folder: pathlib.Path.
        name: of the records.
        manifest: see `describe`.
        force: bool.

    Raises:
        UserError: the folder holds records of that name that were made from something else, or another NAME.json, or
            can't be written to.
    """
    path = folder / f"{name}.json"
    found = _read(path) if path.exists() else {}
    shards = sorted(folder.glob(f"{glob.escape(name)}-{_NUMBERS}.tfrecord"))
    difference = _difference(found, manifest) if found or shards else None
    if difference and not force:
        raise UserError(
            f"{folder} holds records called {name!r} of another conversion ({difference}): give --force to replace "
            "them, or another --out or --name."
        )
    try:
        stopped = folder.glob(f".{glob.escape(name)}-{_NUMBERS}.*.tfrecord")
        for file in [*(shards if difference else []), *stopped]:
            file.unlink(missing_ok=True)
        with replaced(path) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} can't be written to ({error.strerror}): give another --out.") from error


def _read(path):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["json_sha256"]:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is there and isn't a manifest of records: give another --name or --out.")


def _difference(found, manifest):
    """What keeps records of the manifest `found` from being those of `manifest`, as words; None for nothing."""
    if not found:
        return "they have no manifest"
    return next((words for key, words in _IDENTITY.items() if found.get(key) != manifest[key]), None)
