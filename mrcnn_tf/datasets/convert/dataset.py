"""A dataset on its way to COCO's json: its classes, images and objects, and what had to be left out."""

import collections
import dataclasses
import json
import pathlib

import numpy as np
import yaml

from mrcnn_tf.common.categories import UNUSED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.keypoints import ClassKeypoints, fixed_keypoints
from mrcnn_tf.datasets.image_files import FULL_CHECK_BYTES, inspect_file

DECIMALS = 3  # of a coordinate in pixels
FEWEST_NUMBERS = 6  # of a polygon: three points

# What labelme's lists of classes begin with: pixels and shapes of no class. A background has the number 0.
IGNORED = "__ignore__"
BACKGROUNDS = ("_background_", "background")


@dataclasses.dataclass
class ClassNames:
    """Classes and the two kinds of number they go by.

    Attributes:
        categories: list of (id in COCO's json, name). A name may occur twice: such classes differ by their ids.
        numbers: dict number in the dataset's own files -> name; empty where the list is a COCO json.
        source: the file that lists them, for messages.
        keypoints: dict id -> (names of keypoints, skeleton) of a COCO json; None where the list is none.
    """

    categories: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    numbers: dict[int, str] = dataclasses.field(default_factory=dict)
    source: str = "--names"
    keypoints: dict[int, tuple[list[str], list]] | None = None

    def labels(self, numbers=None):
        """What `Dataset.add_object` knows the classes of a dataset's numbers by: the id, or the name without one.

        Args:
            numbers: dict number -> name; None for the own ones. Of classes with the same name, the first is the first
                category of that name, the second the second, and so on.

        Returns:
            dict number -> id or name.
        """
        ids, used = collections.defaultdict(list), collections.Counter()
        for category, name in self.categories:
            ids[name].append(category)
        labels = {}
        for number, name in (self.numbers if numbers is None else numbers).items():
            labels[number] = ids[name][min(used[name], len(ids[name]) - 1)] if name in ids else name
            used[name] += 1
        return labels


def read_names(path, first=0):
    """Classes from a file that a user lists them in.

    Args:
        path: a text file with a name on each line, a yaml or json file with a list or {number: name} (also under
            "names", as in YOLO's data.yaml), or a COCO json, whose ids are kept. None gives None.
        first: the number of the first name in a list.

    Returns:
        ClassNames; ids count from 1 in the order of the file unless it is a COCO json.

    Raises:
        UserError: the file is missing, unreadable or empty.
    """
    if path is None:
        return None
    path = pathlib.Path(path)
    try:
        text, suffix = path.read_text(encoding="utf-8-sig"), path.suffix.lower()
        if suffix == ".json":
            content = json.loads(text)
        elif suffix in (".yaml", ".yml"):
            content = yaml.safe_load(text)
        else:
            content = [line.strip() for line in text.splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"There is no file {path}: give --names a list of class names.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} can't be read as a list of class names ({reason}).") from error
    if isinstance(content, dict) and "categories" in content:
        try:
            categories = [(int(record["id"]), str(record["name"]).strip()) for record in content["categories"]]
            return ClassNames(categories, source=str(path), keypoints=fixed_keypoints(content["categories"]))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            reason = f"without id or name, or with bad keypoints ({error})"
            raise UserError(f"{path} has categories {reason}: correct them.") from None
    return number_names(content, path, first)


def number_names(content, path, first=0):
    """ClassNames of a list or {number: name}, which stands in `path`; raises UserError as `read_names`."""
    if isinstance(content, dict) and "names" in content:
        content = content["names"]
    if isinstance(content, list):
        content = [name for name in content if name != IGNORED]
        has_background = bool(content) and content[0] in BACKGROUNDS
        content = dict(enumerate(content[1:], 1)) if has_background else dict(enumerate(content, first))
    try:
        numbers = {int(number): str(name).strip() for number, name in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} isn't a list of class names: give one name on each line.") from None
    names = list(numbers.values())
    if not names or "" in names:
        raise UserError(f"{path} has {'an empty class name' if names else 'no class names'}: give one on each line.")
    return ClassNames(list(enumerate(names, 1)), numbers, str(path))


@dataclasses.dataclass
class DatasetImage:
    """An image and its annotations, whose ids are given when all are known.

    Attributes:
        file_name: relative to the folder of images, with slashes.
        width, height: pixels of the frame that the coordinates belong to.
        annotations: list of COCO's records without `id` and `image_id`, as json text: a large dataset's points would
            need five times as much memory as numbers. Keypoints are a dict name -> [x, y, visibility] there.
    """

    file_name: str
    width: int
    height: int
    annotations: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class ConversionSummary:
    """What a json holds, for the end of the command.

    Attributes:
        images, objects, boxes_only: counts; the last one is of objects that have a box and no mask.
        classes: dict name -> number of objects; with its id where several classes have the name.
        problems: list of Problem.
    """

    images: int
    objects: int
    boxes_only: int
    classes: dict[str, int]
    problems: list[Problem]


class Dataset:
    """Collects images and objects.

    Args:
        source: the file or folder that they come from, for messages.
        names: ClassNames of `--names`; None to number classes in order of first appearance.

    Attributes:
        image_folder: the folder that file names are relative to where the reader had to make one; None otherwise.
    """

    def __init__(self, source, names=None):
        self.source = str(source)
        self.image_folder = None
        self.images = []
        self.problems = []
        self._file_names = set()
        self._has_fixed_classes = names is not None
        self._names = dict((names or ClassNames()).categories)
        self._ids = {}
        for number, name in self._names.items():
            if self._ids.setdefault(name, number) != number and name != UNUSED:
                apart = f"which only the ids {self._ids[name]} and {number} keep apart"
                message = f"{names.source} has the class {name!r} twice, {apart}: give each class a name of its own."
                self.leave_out("repeated_name", names.source, message, number)
        self._keypoints = ClassKeypoints(names and names.keypoints)
        self._bytes_checked = 0  # of image files
        self._counts, self._boxes_only = collections.Counter(), 0

    def leave_out(self, kind, file, message, record=None):
        """Notes something that isn't used, for `report_problems`."""
        self.problems.append(Problem(kind, record, str(file), message))

    def leave_out_record(self, kind, file, where, detail):
        """Notes a record of `file`, such as "Shape 3"; `detail` goes on after its name, without a period."""
        self.leave_out(kind, file, f"{where} of {file} {detail}.", where)

    def leave_out_missing(self, name, folder, file, record=None):
        """Notes an image whose file isn't in an ImageFolder; `file` and the `record` in it describe the image."""
        message = f"{name}, an image of {file}, isn't in {folder.root} and was left out"
        self.leave_out("missing_image", file, f"{message}: add it, or give its folder by --images.", record)

    def read_frame(self, path, record=None):
        """The ImageFile of an image; None and a note if training can't read it.

        The first files are decoded, too, up to as many bytes as make a set that training decodes when it opens it.
        """
        image = inspect_file(path, thorough=self._bytes_checked <= FULL_CHECK_BYTES)
        self._bytes_checked += image.size
        if not image.problem:
            return image
        kind, what, remedy = image.problem
        self.leave_out(kind, path, f"{path} {what} and was left out: {remedy}.", record)
        return None

    def add_image(self, file_name, width, height, file):
        """Adds an image that `file` describes and gives it, a DatasetImage; None and a note if it's a repetition."""
        if file_name in self._file_names:
            message = f"{file_name} is described again by {file}, which was left out: keep one of them."
            self.leave_out("image_twice", file, message, file_name)
            return None
        self._file_names.add(file_name)
        self.images.append(DatasetImage(file_name, width, height))
        return self.images[-1]

    def add_image_of_size(self, path, folder, file, size=None, record=None):
        """Adds an image file, if it is of the size that its annotations are for.

        Args:
            path: of the image.
            folder: the ImageFolder that it is in.
            file: that describes the image.
            size: (width, height) that `file` says, pixels; None, or sides of 0 or less, where it doesn't know.
            record: what describes the image in `file`, for messages.

        Returns:
            the DatasetImage; None, and a note, if training can't read it, it is of another size, or it's a repetition.
        """
        frame = self.read_frame(path, record)
        if frame is None:
            return None
        width, height = size if size and min(size) > 0 else (frame.width, frame.height)
        if not frame.fits(width, height):
            message = f"{path} is {frame.width} x {frame.height}, but {file} is for {width:g} x {height:g}"
            remedy = "put back the image that was labelled"
            self.leave_out("other_size", file, f"{message} and was left out: {remedy}.", record)
            return None
        return self.add_image(folder.relative(path), int(width), int(height), file)

    def add_object(
        self, image, label, file, where, *, parts=(), box=None, crowd=False, fields=None, keypoints=None, edges=()
    ):
        """Adds an object of an image, or notes why not.

        Args:
            image: DatasetImage.
            label: name of the class, or its id where that is listed: names may occur twice.
            file: that it was read from, for messages.
            where: what it is there, such as "shape 3", for messages.
            parts: list of polygons [x, y, x, y, ...] and run-length masks, which are joined.
            box: [x, y, width, height], asked for where there are no parts.
            crowd: whether it is a group that has no single objects.
            fields: {name: number} of its own, which its annotation gets as they are, for `data.train.fields`.
            keypoints: {name: (x, y, visibility)}, pixels and COCO's 2 for visible, 1 for occluded, 0 for unlabelled;
                the class's other objects get zeros for those that they lack.
            edges: pairs of keypoints' names that a picture joins by a line, COCO's skeleton.
        """
        problem = self._label_problem(label)
        if not problem:
            annotation, problem = make_annotation(parts, box, image.width, image.height)
        if problem:
            kind, detail = problem
            self.leave_out_record(kind, file, where, detail)
            return
        category = self._category_id(label)
        record = {"category_id": category, "iscrowd": int(crowd)} | annotation | (fields or {})
        if keypoints:
            record["keypoints"], problems = self._keypoints.split(category, keypoints)
            self._keypoints.add(category, record["keypoints"], edges)
            for name, kind, detail in problems:
                self.leave_out(kind, file, f"{where} of {file} {detail}.", f"{where}, {name}")
        image.annotations.append(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
        self._counts[category] += 1
        self._boxes_only += not annotation["segmentation"]

    def _category_id(self, label):
        if isinstance(label, int):
            return label
        number = self._ids.setdefault(label.strip(), max(self._names, default=0) + 1)
        self._names.setdefault(number, label.strip())
        return number

    def _label_problem(self, label):
        if isinstance(label, int) and label in self._names:
            return None
        if not isinstance(label, str) or not label.strip():
            return "no_class", "has no class and was left out: give it a label"
        if self._has_fixed_classes and label.strip() not in self._ids:
            detail = f"has the class {label.strip()!r}, which --names lacks, and was left out: add it there"
            return "unknown_class", detail
        return None

    def to_coco(self):
        """The dataset as COCO's json object, a dict; images sorted by name, all ids from 1.

        Raises:
            UserError: there is no image or no object.
        """
        return {section: list(map(json.loads, records)) for section, records in self._sections().items()}

    def _sections(self):
        """dict section -> the json texts of its records, which the annotations' are made one by one."""
        reason = f", the first thing left out was: {self.problems[0].message}" if self.problems else "."
        if not self.images:
            raise UserError(f"{self.source} gives no image{reason}")
        if not any(image.annotations for image in self.images):
            classes = f" of the classes {', '.join(self._names.values())}" if self._names else ""
            raise UserError(f"{self.source} gives {len(self.images)} images and not a single object{classes}{reason}")
        images, ordered = [], sorted(self.images, key=lambda image: image.file_name)
        for number, image in enumerate(ordered, 1):
            images.append({"id": number, "file_name": image.file_name, "width": image.width, "height": image.height})
        categories = [{"id": number, "name": name} for number, name in sorted(self._names.items())]
        categories = [record | self._keypoints.as_category_fields(record["id"]) for record in categories]
        complete = self._keypoints.complete
        texts = ((number, complete(text)) for number, image in enumerate(ordered, 1) for text in image.annotations)
        return {
            "images": (json.dumps(record, ensure_ascii=False) for record in images),
            "annotations": (f'{{"id":{n},"image_id":{image},{text[1:]}' for n, (image, text) in enumerate(texts, 1)),
            "categories": (json.dumps(record, ensure_ascii=False) for record in categories),
        }

    def write(self, out):
        """Writes COCO's json to `out`, whole or not at all; gives a ConversionSummary and raises as `to_coco`."""
        sections = self._sections()
        with atomic_write(out) as path, open(path, "w", encoding="utf-8") as file:
            for index, (section, records) in enumerate(sections.items()):
                file.write(f'{", " if index else "{"}"{section}": [')
                for number, record in enumerate(records):
                    file.write((",\n" if number else "\n") + record)
                file.write("]")
            file.write("}\n")
        repeats = collections.Counter(self._names.values())
        names = {key: f"{name} ({key})" if repeats[name] > 1 else name for key, name in sorted(self._names.items())}
        classes = {name: self._counts[number] for number, name in names.items()}
        return ConversionSummary(len(self.images), self._counts.total(), self._boxes_only, classes, self.problems)


def make_annotation(parts, box, width, height):
    """An object's outlines, masks or box in COCO's form.

    Args:
        parts: list of polygons [x, y, x, y, ...] and run-length masks, which are joined: polygons stay polygons unless
            some part is a mask.
        box: [x, y, width, height], asked for where there are no parts.
        width, height: of the image, pixels.

    Returns:
        (dict with segmentation, bbox and area, None), or (None, (kind, what is wrong with it)). The bbox is that of the
        points or pixels, within the image; the area counts pixels. An object with a box only has an empty segmentation.
    """
    try:
        parts = [np.asarray(part, np.float64) if isinstance(part, list) else part for part in parts]
        box = None if box is None else np.asarray(box, np.float64)
    except (TypeError, ValueError):
        return None, ("bad_coordinate", "has a coordinate that isn't a number and was left out: draw it again")
    if any(isinstance(part, np.ndarray) and not np.isfinite(part).all() for part in [*parts, box]):
        return None, ("bad_coordinate", "has a coordinate that isn't finite and was left out: draw it again")
    if any(isinstance(part, np.ndarray) and part.size % 2 for part in parts):
        return None, ("bad_coordinate", "has an outline with an x without its y and was left out: draw it again")
    parts = [part for part in parts if isinstance(part, dict) or part.size >= FEWEST_NUMBERS]
    if parts:
        return _masked_annotation(parts, width, height)
    if box is None:
        return None, ("too_few_points", "has fewer than 3 points and was left out: outline the object")
    bbox = _clipped_box(box[:2], box[:2] + box[2:], width, height)
    if min(bbox[2:]) <= 0:
        return None, ("outside", "has a box without a part inside its image and was left out: correct the box")
    return {"bbox": bbox, "area": round(bbox[2] * bbox[3], DECIMALS), "segmentation": []}, None


def _masked_annotation(parts, width, height):
    if any(isinstance(part, dict) for part in parts):
        parts = [part if isinstance(part, dict) else part.tolist() for part in parts]
        segmentation = parts[0] if len(parts) == 1 else run_lengths.merge_segmentations(parts, height, width)
        bbox = run_lengths.box_of_rle(segmentation)
    else:
        segmentation = [part.round(DECIMALS).tolist() for part in parts]
        points = np.concatenate(parts).reshape(-1, 2)
        bbox = _clipped_box(points.min(axis=0), points.max(axis=0), width, height)
    area = run_lengths.mask_area(segmentation, height, width)
    if not area:
        return None, ("outside", "covers no pixel of its image and was left out: remove it or draw it again")
    return {"bbox": bbox, "area": area, "segmentation": segmentation}, None


def _clipped_box(first, last, width, height):
    """[x, y, width, height] of what lies in the image between two corners [2]."""
    first, last = (np.clip(corner, 0, (width, height)) for corner in (first, last))
    return np.concatenate([first, last - first]).round(DECIMALS).tolist()
