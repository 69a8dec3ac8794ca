"""Published weights: where they are, what they reach, what is known of them, and where they are kept here."""

import dataclasses
import difflib
import functools
import pathlib
import re

import yaml

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import file_digest
from mrcnn_tf.weights.architecture import COCO_80, COCO_90, PERSON
from mrcnn_tf.weights.download import download, fetch_address, is_address, weights_folder

FOLDER = pathlib.Path(__file__).parent
# What a file's name says of its content: the beginning of a hash before the ending.
HASH_IN_NAME = re.compile(r"[-_](?P<digest>[0-9a-f]{6,})\.\w+$")
# What is checked of a file that is there; MD5, which takes twice as long, of downloads alone.
KEPT_HASH = "sha256"
# detectron2's configs write the beginning of its addresses so.
DETECTRON2_PREFIX, DETECTRON2_ADDRESS = "detectron2://", "https://dl.fbaipublicfiles.com/detectron2/"


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published model, one of those in presets.yaml.

    Attributes:
        name: what `load_pretrained` takes.
        publisher: torchvision, detectron2, Detectron, mmdetection or matterport.
        page: the web page that says so.
        licence: of the weights.
        address: of the file.
        file: its name there.
        algorithm, digest: how the file's hash begins, such as "sha256" and "bf2d0c1e"; None where nobody says.
        config: the config of the model; None for a backbone.
        settings: overrides as in `load_config` for that in which the model differs from the config and no shape shows,
            and facts about the file such as "file.pixel_order=BGR".
        classes: of which data: coco80 (without the unused ids), coco90, person (COCO's keypoints), cityscapes, voc,
            lvis05 or lvis1; None for a backbone.
        box_ap, mask_ap, keypoint_ap: percent as published, on COCO val2017 or that data's validation images; None where
            nothing is.
        pq: panoptic quality in percent, as mask_ap.
        refused: what it is, where no model of this package is like that; else None.
    """

    name: str
    publisher: str
    page: str
    licence: str
    address: str
    file: str
    algorithm: str | None = None
    digest: str | None = None
    config: str | None = None
    settings: tuple[str, ...] = ()
    classes: str | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    keypoint_ap: float | None = None
    pq: float | None = None
    refused: str | None = None

    def categories(self):
        """The K classes that it detects as a list of `Category`; None for a backbone."""
        return None if self.classes is None else categories_of(self.classes)


@functools.cache
def categories_of(data):
    """The classes of published data, by a name that `Preset.classes` may have, as a list of `Category`."""
    known = {"coco80": COCO_80, "coco90": COCO_90, "person": [PERSON]}
    if data in known:
        return known[data]
    names = _read_yaml("other_classes.yaml")[data]
    by_id = names if isinstance(names, dict) else dict(enumerate(names, 1))
    return [Category(id, name) for id, name in by_id.items()]


def _read_yaml(file):
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
    return yaml.load((FOLDER / file).read_text(encoding="utf-8"), loader)


@functools.cache
def _read_presets():
    presets = {}
    for group in _read_yaml("presets.yaml").values():
        models, common = group.pop("models"), group
        for name, own in models.items():
            presets[name] = _preset(name, common | own, [*common.get("settings", ()), *own.get("settings", ())])
    return presets


def _preset(name, fields, settings):
    folder, algorithm = fields.pop("folder", ""), fields.pop("hash", None)
    match = HASH_IN_NAME.search(fields["file"]) if algorithm else None
    fields["address"] = fields["address"].format(folder=folder, file=fields["file"])
    fields["settings"] = tuple(settings)
    if not fields.get("config"):
        fields["classes"] = None
    return Preset(name, algorithm=match and algorithm, digest=match and match["digest"], **fields)


def all_presets():
    """The published models, with those that can't be imported: a list of `Preset`."""
    return list(_read_presets().values())


def list_presets():
    """The published models that can be imported: a list of `Preset`."""
    return [preset for preset in all_presets() if not preset.refused]


def find_preset(name):
    """The `Preset` of that name, or of the published file of that name or address; None for none, and for several.

    A file's name may lack its ending, and the hash before it.
    """
    name = name.replace(DETECTRON2_PREFIX, DETECTRON2_ADDRESS, 1) if name.startswith(DETECTRON2_PREFIX) else name
    presets = _read_presets()
    found = [presets[name]] if name in presets else [each for each in presets.values() if name in _names_of(each)]
    return found[0] if len(found) == 1 else None


def _names_of(preset):
    stem = pathlib.PurePath(preset.file).stem
    return preset.address, preset.file, stem, HASH_IN_NAME.sub("", preset.file)


def published_as(path):
    """The `Preset` that a file on disk is; None where it is none that can be imported, or can't be told.

    It is told by its name, with the folders that it is in where several have that name, and by its hash, whatever its
    name but for the ending. A name with another SHA-256 isn't enough: people keep the names of what they trained on.
    The files of detectron2's zoo are known by their names alone, as detectron2 knows them.
    """
    presets, path = list_presets(), pathlib.Path(path)
    named = _longest_match(path.absolute().parts, [each for each in presets if each.file == path.name])
    if named and named.algorithm != KEPT_HASH:
        return named
    alike = [each for each in presets if each.digest and pathlib.PurePath(each.file).suffix == path.suffix]
    digests = {algorithm: file_digest(path, algorithm) for algorithm in {each.algorithm for each in alike}}
    return next((each for each in alike if digests[each.algorithm].startswith(each.digest)), None)


def _longest_match(parts, presets):
    """Of presets whose file has a path's name, the one whose address or place here shares most of the folders."""
    if len(presets) < 2:
        return presets[0] if presets else None
    shared = [max(_shared(parts, each.address.split("/")), _shared(parts, _place(each).parts)) for each in presets]
    best = max(shared)
    return presets[shared.index(best)] if best > 1 and shared.count(best) == 1 else None


def _shared(first, second):
    """How many parts two paths have in common, from the end."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def _place(preset):
    """Where a preset's file is kept: those that share a name with others in folders of their own."""
    is_alone = sum(each.file == preset.file for each in all_presets()) < 2
    return weights_folder() / preset.file if is_alone else weights_folder() / preset.name / preset.file


def locate(source):
    """(path, its `Preset` or None) of the file that a user names by path, preset or address; the last two download it.

    UserError if there is none.
    """
    path = pathlib.Path(source)
    if not path.is_file():
        preset = find_preset(str(source))
        if preset:
            return preset_file(preset), preset
        if not is_address(source):
            names = [preset.name for preset in list_presets()]
            examples = ", ".join(difflib.get_close_matches(str(source), names) or names[:3])
            raise UserError(
                f"There is no file {path}: give a checkpoint's path, imagenet, a preset such as {examples}, or an "
                "address, https://host/path/file or hf://owner/name."
            )
        path = fetch_address(str(source))
    return path, published_as(path)


def preset_file(preset):
    """The path of a preset's file in the folder `weights` of the cache folder, downloaded if it isn't there.

    UserError, with what to download by hand to where, if it can't be had, if what is there isn't what was published,
    and for a model that can't be imported.
    """
    if preset.refused:
        raise UserError(
            f"{preset.name} is {preset.refused}, so it can't be imported: mrcnn_tf.list_presets() lists what can."
        )
    path = _place(preset)
    if not path.is_file():
        download(preset.address, path, algorithm=preset.algorithm, digest=preset.digest, page=preset.page)
    elif preset.algorithm == KEPT_HASH and not (found := file_digest(path, KEPT_HASH)).startswith(preset.digest):
        raise UserError(
            f"{path} isn't the file that was published (its {KEPT_HASH} begins with "
            f"{found[: len(preset.digest)]} and not with {preset.digest}): delete it, and it is downloaded again."
        )
    return path
