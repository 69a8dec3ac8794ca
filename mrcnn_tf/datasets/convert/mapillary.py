"""Mapillary Vistas: SPLIT/images/*.jpg with SPLIT/VERSION/instances/*.png, and config_VERSION.json with the classes.

A pixel of instances is class * 256 + object, of the classes as the config lists them from 0; those without objects have
one number. Version 1.0 and 1.1 have SPLIT/instances and config.json. The same objects stand in version 2.0's polygons,
which aren't read: of overlapping ones, the PNGs say which is in front.
"""

from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.dataset import ClassNames, Dataset
from mrcnn_tf.datasets.convert.inputs import existing_path, raise_wrong_format, read_json
from mrcnn_tf.datasets.convert.map_pairs import read_mapped_image
from mrcnn_tf.datasets.convert.splits import choose_split
from mrcnn_tf.datasets.image_folder import ImageFolder

DIVISOR = 256
GROUP = "-group"  # what a class ends with that is several objects of another one


def read_mapillary(source, images=None, names=None, split=None, version=None):
    """The Dataset of the objects of Mapillary Vistas; see `convert` for readers.

    Ids of classes are those of its panoptic json, their place in the config from 1. Groups of persons or poles become
    crowds of these; groups that no class is for are left out and noted.

    Args:
        source: the folder that holds the splits and the config.
        split: such as "training"; a UserError if it's needed and missing.
        version: "v1.2" or "v2.0"; the same.
    """
    source = existing_path(source, "the folder that holds Mapillary's splits")
    home, maps_folder, config = _find_maps(source, split, version)
    classes, group_of = _read_config(config)
    # Maps have the names of images, which are looked for where no maps are.
    photos, folder = ImageFolder(images or home / "images"), ImageFolder(images or source)
    names = names or ClassNames([(number + 1, name) for number, name in classes.items()])
    labels_of, dataset = names.labels(classes), Dataset(source, names)
    for file in show_progress(sorted(maps_folder.glob("*.png")), "Mapillary"):
        path = photos.find(f"{home.name}/images/{file.stem}.jpg")
        if path is None:
            dataset.leave_out_missing(f"{file.stem}.jpg", photos, file)
            continue
        mapped = read_mapped_image(file, path, folder, dataset)
        if mapped:
            _add_objects(*mapped, file, labels_of, group_of, config, dataset)
    return dataset


def _find_maps(source, split, version):
    """(the split's folder, its folder of instances, config) of a split and version."""
    # The source may be a split itself.
    places = _version_folders(source) or [
        place for folder in sorted(source.glob("*")) if folder.is_dir() for place in _version_folders(folder)
    ]
    if not places:
        raise_wrong_format(source, "mapillary")
    chosen = choose_split((folder.name for folder, _, _ in places if folder != source), split, source)
    places = [place for place in places if place[0].name == chosen or chosen is None]
    versions = [name for _, name, _ in places]
    if version is None and len(versions) > 1:
        several = ", ".join(map(str, versions))
        raise UserError(f"{places[0][0]} has the versions {several}: name one, as --version {versions[-1]}.")
    place = next((place for place in places if version in (None, place[1])), None)
    if place is None:
        raise UserError(f"{places[0][0]} has no {version}: leave --version out or name one of its folders.")
    folder, version, maps_folder = place
    wanted = [f"config_{version}.json", "config.json"] if version else ["config.json", "config_v1.2.json"]
    folder = folder.absolute()  # of ".", the parent isn't known
    configs = [parent / name for name in wanted for parent in (source, folder, folder.parent)]
    config = next((path for path in configs if path.is_file()), None)
    if config is None:
        raise UserError(f"There is no {configs[0]}, which lists Mapillary's classes: put it there.")
    return folder, maps_folder, config


def _version_folders(folder):
    """(folder, version or None, folder of instances) of each version in a folder that is a split's."""
    parts = [part for part in [folder, *sorted(folder.glob("v[0-9]*"))] if (part / "instances").is_dir()]
    return [(folder, part.name if part != folder else None, part / "instances") for part in parts]


def _read_config(config):
    """({number: name} of the classes with objects, {number of a group: number of its class or None}) of a json."""
    try:
        labels = read_json(config)["labels"]
        paths = [label["name"] for label in labels]
        readable = [label.get("readable", label["name"]) for label in labels]
        readable = readable if len(set(readable)) == len(readable) else paths
        has_objects = [bool(label["instances"]) for label in labels]
    except (AttributeError, KeyError, TypeError):
        raise BrokenFile(f"{config} has no list of labels with name and instances: put back Mapillary's.") from None
    groups, classes = {}, {}
    for number, path in enumerate(paths):
        if path.endswith(GROUP):
            singles = path.removesuffix(GROUP), f"{path.rpartition('--')[0]}--individual"
            groups[number] = next((paths.index(name) for name in singles if name in paths), None)
        elif has_objects[number]:
            classes[number] = readable[number]
    return classes, {group: single if single in classes else None for group, single in groups.items()}


def _add_objects(pixels, image, file, labels_of, group_of, config, dataset):
    """Adds the objects of a map [H, W] to their image."""
    for number, rle in run_lengths.encode_labels(pixels + 1).items():  # 0 is a class here
        class_number, where = (number - 1) // DIVISOR, f"Object {number - 1}"
        single = group_of.get(class_number, class_number)
        if single in labels_of:
            is_group = class_number in group_of
            dataset.add_object(image, labels_of[single], file, where, parts=[rle], crowd=is_group)
        elif single is None:
            message = f"{file} has {number - 1}, a group of things of no one class, which was left out."
            dataset.leave_out("group_of_classes", file, message, number - 1)
