"""Published weights that can be imported: where they are, what they reach, and where they are kept here."""

import dataclasses
import functools
import pathlib

import yaml

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import cache_folder, sha256


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published model, one of those in presets.yaml.

    Attributes:
        name: what `load_pretrained` takes.
        page: the web page that links to the file.
        entry: what to look for on that page.
        file: the file's name there.
        licence: of the weights.
        sha256: how the file's SHA-256 begins, where its publisher says so; else None.
        config: the matching config; None for a backbone.
        box_ap, mask_ap, keypoint_ap: percent on COCO val2017 as published; None where nothing is.
        pq: panoptic quality in percent, as mask_ap.
    """

    name: str
    page: str
    entry: str
    file: str
    licence: str
    sha256: str | None = None
    config: str | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    keypoint_ap: float | None = None
    pq: float | None = None


@functools.cache
def _read_presets():
    publishers = yaml.safe_load(pathlib.Path(__file__).with_name("presets.yaml").read_text(encoding="utf-8"))
    return {
        name: Preset(name, page=publisher["page"], licence=publisher["licence"], **fields)
        for publisher in publishers.values()
        for name, fields in publisher["models"].items()
    }


def list_presets():
    """The published models that can be imported: a list of `Preset`."""
    return list(_read_presets().values())


def find_preset(name):
    """The `Preset` of that name, or None."""
    return _read_presets().get(name)


def preset_file(preset):
    """The path of a preset's file in the folder `weights` of the cache folder.

    UserError, with what to download from where, if it isn't there or its content isn't what was published.
    """
    path = pathlib.Path(cache_folder()) / "weights" / preset.file
    if not path.is_file():
        raise UserError(
            f"The weights '{preset.name}' aren't in {path.parent}: download {preset.file} ({preset.entry} on "
            f"{preset.page}) into that folder."
        )
    if preset.sha256:
        digest = sha256(path)
        if not digest.startswith(preset.sha256):
            raise UserError(
                f"{path} isn't the file that was published (its SHA-256 begins with {digest[:8]} and not with "
                f"{preset.sha256}): download it again from {preset.page}."
            )
    return path
