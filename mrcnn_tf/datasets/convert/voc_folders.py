"""Which files of a folder in VOC's manner belong to which image, and to which split.

VOC itself has Annotations/NAME.xml, SegmentationObject/NAME.png and SegmentationClass/NAME.png, and lists of names in
ImageSets. CVAT and labelme2voc leave Annotations out, labelme2voc writes .npy files, too, Roboflow has a folder for
each split with xml files beside the images, and labelImg xml files anywhere.
"""

import dataclasses
import pathlib

from mrcnn_tf.datasets.convert.inputs import read_text
from mrcnn_tf.datasets.convert.splits import choose_split, split_of, split_of_name
from mrcnn_tf.datasets.image_files import IMAGE_SUFFIXES

OBJECTS, CLASSES = "SegmentationObject", "SegmentationClass"
ANNOTATIONS = "Annotations"
_TASKS = ("Segmentation", "Main")  # folders in ImageSets
_FLAGS = ("1", "0", "-1")  # after a name in the list of one class: present, difficult, absent


@dataclasses.dataclass
class VocFiles:
    """What there is of an image; paths, None for what isn't there.

    Attributes:
        root: the folder of Annotations or SegmentationObject, or that of the xml file.
        name: of the image, without suffix, with the folders that it has within Annotations or SegmentationObject.
        xml, objects, classes: its annotation, and its maps of objects and of classes.
    """

    root: pathlib.Path
    name: str
    xml: pathlib.Path | None = None
    objects: pathlib.Path | None = None
    classes: pathlib.Path | None = None

    @property
    def main_file(self):
        """For messages: the xml, or else a map."""
        return self.xml or self.objects or self.classes


def find_roots(source):
    """The folders of datasets in `source`, a folder or an xml file; list of Path, `source` itself if it is none."""
    if source.is_file():
        return [source.parent.parent if source.parent.name == ANNOTATIONS else source.parent]
    known = {ANNOTATIONS, *_map_folders(OBJECTS), *_map_folders(CLASSES)}
    if source.name in known:
        return [source.parent]
    if any((source / name).is_dir() for name in known):
        return [source]
    return sorted({path.parent for path in source.rglob("*") if path.name in known and path.is_dir()}) or [source]


def find_files(source, roots):
    """All the images' VocFiles, sorted by root and name."""
    files = {}
    for root in roots:
        folder = root / ANNOTATIONS if (root / ANNOTATIONS).is_dir() else root
        maps = {"objects": _maps_in(root, OBJECTS), "classes": _maps_in(root, CLASSES)}
        for path in [source] if source.is_file() else folder.rglob("*"):
            if path.suffix.lower() == ".xml" and path.is_file():
                name = source.stem if source.is_file() else path.relative_to(folder).with_suffix("").as_posix()
                # Maps may lack the folders that the xml is in.
                own = {kind: paths.get(name) or paths.get(path.stem) for kind, paths in maps.items()}
                files[root, name] = VocFiles(root, name, path, **own)
        used = {path for entry in files.values() for path in (entry.objects, entry.classes)}
        for kind, paths in maps.items():
            for name, path in paths.items():
                if path not in used and not source.is_file():
                    setattr(files.setdefault((root, name), VocFiles(root, name)), kind, path)
    return [files[key] for key in sorted(files)]


def _map_folders(kind):
    # labelme2voc's numpy arrays come first: its PNGs have 8 bits, and object 257 gets the number 1 there.
    return f"{kind}Npy", kind, f"{kind}PNG"


def _maps_in(root, kind):
    """dict name -> the map of that name."""
    maps = {}
    for folder in _map_folders(kind):
        for suffix in (".npy", ".png"):
            for path in sorted((root / folder).rglob(f"*{suffix}")):
                name = path.relative_to(root / folder).as_posix().removesuffix(suffix)
                maps.setdefault(name, path)
    return maps


def is_map(path, root):
    """Whether a file lies in a folder of maps, or of pictures that show them, and isn't a photo."""
    folders = pathlib.Path(path).relative_to(root).parts[:-1]
    return any(folder.startswith((OBJECTS, CLASSES)) or folder == "Masks" for folder in folders)


def files_of_split(files, split, source, roots, dataset):
    """The VocFiles of a split: of a list in ImageSets, or of the folders of that name; all, if there is one at most.

    What a list names and isn't there is noted in the Dataset, and so are lists that were joined.

    Raises:
        UserError: there is no such split, or none was named and there are folders of several.
    """
    lists, folders = _find_lists(roots), {}
    for entry in files:
        if name := split_of(entry.main_file, source):
            folders.setdefault(name, []).append(entry)
    if split is None:
        choose_split(folders, None, source)
        _note_lists(files, lists, source, dataset)
        return files
    name = next((name for name in sorted(lists, key=lambda name: name != split) if name.lower() == split.lower()), None)
    if name:
        return _listed(files, lists[name], dataset)
    wanted = split_of_name(split)
    return folders[choose_split(folders or lists, wanted if wanted in folders else split, source)]


def _find_lists(roots):
    """dict name of a list in ImageSets -> its files, the first of each root; lists of single classes come last."""
    lists = {}
    for root in roots:
        own = {}
        for task in _TASKS:
            for path in sorted((root / "ImageSets" / task).glob("*.txt"), key=lambda path: ("_" in path.stem, path)):
                own.setdefault(path.stem, (root, path))
        for name, place in own.items():
            lists.setdefault(name, []).append(place)
    return lists


def _listed(files, places, dataset):
    """The VocFiles that lists name, each once."""
    by_name = {(entry.root, entry.name): entry for entry in files}
    listed = {}
    for root, path in places:
        for line in filter(None, map(str.strip, read_text(path).splitlines())):
            name = _listed_name(line, root, by_name)
            if (root, name) not in by_name and (root, name) not in listed:
                what = f"{ANNOTATIONS}/{name}.xml nor {OBJECTS}/{name}.png"
                message = f"{root} has neither {what}, which {path} lists: add one of them or correct the list."
                dataset.leave_out("missing_annotation", path, message, name)
            listed[root, name] = by_name.get((root, name))
    return list(filter(None, listed.values()))


def _listed_name(line, root, by_name):
    """The name in a line of a list, which has a flag after the name in lists of one class."""
    name, _, flag = line.rpartition(" ")
    name = name.strip() if flag in _FLAGS and (root, line) not in by_name else line
    stem, dot, suffix = name.rpartition(".")
    # Some tools list file names.
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES and (root, name) not in by_name else name


def _note_lists(files, lists, source, dataset):
    """Notes what lists name and isn't there, and that several splits become one json, where none was asked for."""
    splits = list(filter(split_of_name, lists))
    if len(splits) > 1:
        remedy = f"give --split {splits[0]} and so on to keep them apart"
        message = f"ImageSets in {source} lists {', '.join(splits)}, and all images are in one json: {remedy}."
        dataset.leave_out("splits_joined", source, message)
    _listed(files, [place for name, places in lists.items() if "_" not in name for place in places], dataset)
