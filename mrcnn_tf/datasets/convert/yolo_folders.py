"""Where the images and labels of a YOLO dataset are, and which split each image is of.

Splits are those of data.yaml. Its paths are often another machine's, so that a split is also found by the end of its
path, in a list of images called train.txt or the like, or by the name of a folder: images/train or train/images.
"""

import collections
import dataclasses
import os
import pathlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.inputs import read_text
from mrcnn_tf.datasets.convert.splits import SPLIT_OF_WORD, choose_split, split_of, split_of_name
from mrcnn_tf.datasets.image_files import IMAGE_SUFFIXES
from mrcnn_tf.datasets.image_folder import ImageFolder, find_image_files, without_upload_prefix

OTHER = "other"  # images outside of the splits' folders and lists
_CLASS_LISTS = ("classes", "predefined_classes")  # stems of text files that are no labels
BOX_FIELDS = 5  # numbers of a line with a box: class, centre, width and height


@dataclasses.dataclass
class Splits:
    """The images of a dataset.

    Attributes:
        images: dict split -> sorted list of Path; that of "" are all images, where there are no splits.
        notes: list of (split, kind, file, message) of paths that lead nowhere.
    """

    images: dict[str, list[pathlib.Path]] = dataclasses.field(default_factory=dict)
    notes: list[tuple[str, str, str, str]] = dataclasses.field(default_factory=list)

    def choose(self, split, source):
        """(name of the split, its images); raises UserError for no such split, or several and no `split`."""
        names = [name for name in self.images if name]
        if split and split not in names:
            split = split_of_name(split) or split
        if split:
            note = "".join(f" ({message})" for name, _, _, message in self.notes if name == split)
        else:
            note = f", where {OTHER} are images outside of them" if OTHER in names else ""
            # train and val of a small set are often the same images.
            names = names if len(set(map(tuple, self.images.values()))) > 1 else names[:1]
        name = choose_split(names, split or None, source, note) or ""
        return name, self.images.get(name, [])


def root_of(settings, settings_file):
    """The folder of a dataset: where the `path` of its data.yaml leads; that of data.yaml if it leads nowhere."""
    base = str(settings.get("path") or ".").replace("\\", "/")
    places = (settings_file.parent / base, pathlib.Path(base))
    return next((place for place in places if place.is_dir()), settings_file.parent)


def find_splits(root, settings=None, settings_file=None):
    """The Splits of a dataset in `root`, with the content and path of its data.yaml, if it has one."""
    splits = Splits()
    paths = _SettingPaths(settings or {}, settings_file, root)
    places = paths.find(splits)
    images = find_image_files(root)
    folder = ImageFolder(root)
    for split, found in places.items():
        splits.images[split] = _images_of(found, split, folder, splits)
    wanted = {split: values for split, values in paths.values.items() if split not in places}
    if not places or wanted:
        for split, (where, found) in _splits_by_names(images, folder, splits, wanted if places else None).items():
            splits.images[split] = found
            if split in wanted:
                paths.note(splits, split, f"its images were found in {where}")
    for split in wanted:
        if split not in splits.images:
            paths.note(splits, split, "no folder or list of that name is here either")
    if not places:
        used = {path for found in splits.images.values() for path in found}
        splits.images[OTHER if used else ""] = [path for path in images if path not in used]
    order = [*dict.fromkeys(SPLIT_OF_WORD.values()), OTHER, ""]
    splits.images = {split: splits.images[split] for split in order if splits.images.get(split)}
    return splits


class _SettingPaths:
    """The paths of the splits in data.yaml.

    Attributes:
        values: dict split -> list of str.
    """

    def __init__(self, settings, file, root):
        self.file, self.root = file, root
        self.base = str(settings.get("path") or "").replace("\\", "/")
        self.values = {}
        for name, split in SPLIT_OF_WORD.items():
            value = settings.get(name) or []
            for text in value if isinstance(value, list) else [value]:
                self.values.setdefault(split, []).append(str(text).replace("\\", "/"))

    def find(self, splits):
        """dict split -> list of Path, of splits whose paths lead to images of no other split; notes of moved ones."""
        exact, moved = {}, {}
        for split, values in self.values.items():
            found = {
                value: path for value in values if (path := self._as_written(value)) and not self._has_several(path)
            }
            if found:
                exact[split] = list(found.values())
                if lost := [value for value in values if value not in found]:
                    self.note(splits, split, "it was left out", lost)
            elif found := [path for value in values if (path := self._by_end(value, split))]:
                moved[split] = found
        owners = collections.defaultdict(set)
        for split, paths in [*exact.items(), *moved.items()]:
            for path in paths:
                owners[path].add(tuple(self.values[split]))
        # Two paths that end at one place here are of two places there.
        moved = {split: paths for split, paths in moved.items() if all(len(owners[path]) == 1 for path in paths)}
        for split, paths in moved.items():
            self.note(splits, split, f"{', '.join(map(str, paths))} was taken")
        return exact | moved

    def note(self, splits, split, what, values=()):
        """Notes that paths of a split, or all, aren't there, and `what` follows of it."""
        values = values or self.values[split]
        paths = ", ".join(value if not self.base or _is_absolute(value) else f"{self.base}/{value}" for value in values)
        is_there = any(map(self._as_written, values))
        reason = "holds the folders of several splits" if is_there else "isn't there"
        message = f"{split} in {self.file} is {paths}, which {reason}: {what}"
        splits.notes.append((split, "moved_path", self.file, message))

    def _as_written(self, value):
        is_lost = self.base and not any(
            path.is_dir() for path in (self.file.parent / self.base, pathlib.Path(self.base))
        )
        if is_lost and not _is_absolute(value):
            return None
        # Roboflow's data.yaml says ../train/images of a folder that lies beside it.
        places = (self.root / value, self.root / value.removeprefix("../"))
        return next((path for path in places if path.exists()), None)

    def _by_end(self, value, split):
        """The longest end of a path that is a path here, and not of another split."""
        parts = [part for part in f"{self.base}/{value}".split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            path = self.root.joinpath(*parts[start:])
            if path.exists() and not self._has_several(path):
                name = path if path.is_dir() else path.with_suffix("")
                return path if split_of(name / "image", self.root) in (None, split) else None
        return None

    def _has_several(self, path):
        return path.is_dir() and len({split_of(image, self.root) for image in find_image_files(path)} - {None}) > 1


def _is_absolute(path):
    return path.startswith("/") or path[1:3] == ":/"


def _images_of(places, split, folder, splits):
    """The images of folders and of files that list them, sorted; listed ones that aren't here are noted."""
    images = set()
    for place in places:
        if place.is_dir():
            images.update(find_image_files(place))
            continue
        for line in filter(None, map(str.strip, read_text(place).splitlines())):
            path = pathlib.Path(line) if os.path.isabs(line) else place.parent / line
            path = path if path.is_file() else folder.find(line)
            if path is None:
                message = f"{line} of {place} isn't in {folder.root} and was left out"
                splits.notes.append((split, "missing_image", str(place), message))
            else:
                images.add(_as_in_folder(path, folder.root))
    return sorted(images, key=lambda path: path.as_posix())


def _as_in_folder(path, root):
    """A path as `find_image_files` gives it, if it is in a folder."""
    below = os.path.relpath(path, root)
    return path if below.startswith("..") else root / below


def _splits_by_names(images, folder, splits, wanted):
    """dict split -> (where it was found, list of Path), by lists of images and names of folders; `wanted` or all."""
    found = {}
    for file in sorted([*folder.root.glob("*.txt"), *folder.root.glob("*/*.txt")]):
        split = split_of_name(file.stem)
        if not split or (wanted is not None and split not in wanted):
            continue
        if _lists_images(file) and (listed := _images_of([file], split, folder, splits)):
            place, others = found.get(split, ([], []))
            found[split] = [*place, file], [*others, *listed]
    listed = {path for _, paths in found.values() for path in paths}
    by_folder = collections.defaultdict(list)
    for path in images:
        split = split_of(path, folder.root)
        if split and split not in found and path not in listed and (wanted is None or split in wanted):
            by_folder[split].append(path)
    for split, paths in by_folder.items():
        found[split] = sorted({_split_folder(path, folder.root) for path in paths}), paths
    return {split: (", ".join(map(str, places)), sorted(set(paths))) for split, (places, paths) in found.items()}


def _split_folder(path, root):
    parts = path.relative_to(root).parts
    return root.joinpath(*parts[: next(index for index, part in enumerate(parts) if split_of_name(part)) + 1])


def _lists_images(file):
    lines = read_text(file).split("\n", 1)[:1]
    return any(pathlib.PurePosixPath(line.strip()).suffix.lower() in IMAGE_SUFFIXES for line in lines)


class LabelFiles:
    """The text files with objects of a dataset.

    They are in labels/ where the image's path has images/ (for the last time, if there are several), else beside it, in
    labels/ within its folder or beside that, whatever the letter case. One that is nowhere there is a file of its name
    in another folder, if it is the only one; one of the two names may have Label Studio's prefix.

    Args:
        root: the dataset's folder.
        images: list of Path of all images, of all splits.
    """

    def __init__(self, root, images):
        self._root = root
        folders = {path.parent for path in images if not path.is_relative_to(root)}
        folders |= {place for folder in folders for place in label_folders(folder)}
        files = {path for folder in [root, *folders] for path in find_image_files(folder, (".txt",))}
        self.files = sorted(path for path in files if not _is_no_label(path))
        self._by_place = {_place(path): path for path in self.files}
        self._of_image = {path: file for path in images if (file := self._in_usual_place(path))}
        self._match_by_name([path for path in images if path not in self._of_image])

    def find(self, image):
        """The labels of an image; None if it has none."""
        return self._of_image.get(image)

    def unused(self, split):
        """Files in labels/, or with objects, that are of no image and may be of a split; of any for ""."""
        used = set(self._of_image.values())
        files = [file for file in self.files if file not in used]
        files = [file for file in files if _is_in_labels(file) or starts_with_numbers(file)]
        return [file for file in files if not split or split_of(file, self._root) in (None, split)]

    def _in_usual_place(self, image):
        folder, above = image.parent, image.parent.parent
        beside = above / "labels"
        places = (*label_folders(folder), folder, folder / "labels", beside / folder.name, beside)
        return next(filter(None, (self._by_place.get(_place(place / image.name)) for place in places)), None)

    def _match_by_name(self, images):
        used = set(self._of_image.values())
        files, owners = collections.defaultdict(list), collections.defaultdict(list)
        for file in self.files:
            if file not in used:
                files[without_upload_prefix(file.stem)].append(file)
        for image in images:
            owners[without_upload_prefix(image.stem)].append(image)
        for stem, found in owners.items():
            if len(found) == len(files[stem]) == 1 and starts_with_numbers(files[stem][0]):
                splits = split_of(files[stem][0], self._root), split_of(found[0], self._root)
                if splits[0] in (None, splits[1]):
                    self._of_image[found[0]] = files[stem][0]


def label_folders(folder):
    """labels/ in place of images/ in a path; of several, Ultralytics takes the last, which is the first here."""
    parts = folder.parts
    places = [index for index in reversed(range(len(parts))) if parts[index].lower() == "images"]
    return [pathlib.Path(*parts[:index], "labels", *parts[index + 1 :]) for index in places]


def _place(path):
    return path.with_suffix("").as_posix().casefold()


def _is_in_labels(path):
    return "labels" in [part.lower() for part in path.parent.parts]


def _is_no_label(path):
    """Whether a text file is a list of classes or images, or something to read."""
    return path.stem.lower() in _CLASS_LISTS or (split_of_name(path.stem) is not None and _lists_images(path))


def starts_with_numbers(path):
    """Whether a text file begins as the labels of an object."""
    try:
        words = read_text(path).split()[:BOX_FIELDS]
        return len([float(word) for word in words]) == BOX_FIELDS
    except (UserError, ValueError):
        return False
