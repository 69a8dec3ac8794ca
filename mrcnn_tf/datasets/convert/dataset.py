"""A dataset on its way to COCO's json: images, objects with their classes, and what had to be left out."""

import dataclasses
import json

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import replaced
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets.convert.annotation import as_annotation
from mrcnn_tf.datasets.convert.class_names import ClassNames


@dataclasses.dataclass
class Picture:
    """An image and its annotations, whose ids are given when all are known.

    Attributes:
        file_name: relative to the folder of images, with slashes.
        width, height: pixels of the frame that the coordinates belong to.
        annotations: list of dict in COCO's form, without `id` and `image_id`.
    """

    file_name: str
    width: int
    height: int
    annotations: list[dict] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Written:
    """What a json holds, for the end of the command.

    Attributes:
        images, objects, boxes_only: counts; the last one is of objects that have a box and no mask.
        classes: dict name -> number of objects.
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
    """

    def __init__(self, source, names=None):
        self.source = str(source)
        self.pictures = []
        self.problems = []
        self._file_names = set()
        self._fixed = names is not None
        self._ids = {name: number for number, name in (names or ClassNames()).categories}

    def leave_out(self, kind, file, message, record=None):
        """Notes something that isn't used, as `problems.report` will tell it."""
        self.problems.append(Problem(kind, record, str(file), message))

    def add_picture(self, file_name, width, height, file):
        """Adds an image that `file` describes and gives it, a Picture; None and a note if it was there before."""
        if file_name in self._file_names:
            message = f"{file_name} is described again by {file}, which was left out: keep one of them."
            self.leave_out("image_twice", file, message, file_name)
            return None
        self._file_names.add(file_name)
        picture = Picture(file_name, width, height)
        self.pictures.append(picture)
        return picture

    def add_object(self, picture, label, file, where, *, parts=(), box=None, crowd=False):
        """Adds an object of a picture, or notes why not.

        Args:
            picture: Picture.
            label: name of the class.
            file: that it was read from, for messages.
            where: what it is there, such as "shape 3", for messages.
            parts: list of polygons [x, y, x, y, ...] and run-length masks, which are joined.
            box: [x, y, width, height], asked for where there are no parts.
            crowd: whether it is a group that has no single objects.
        """
        problem = self._label_problem(label)
        if not problem:
            annotation, problem = as_annotation(parts, box, picture.width, picture.height)
        if problem:
            self.leave_out(problem[0], file, f"{where} of {file} {problem[1]}.", where)
            return
        name = label.strip()
        category = self._ids.setdefault(name, max(self._ids.values(), default=0) + 1)
        picture.annotations.append({"category_id": category, "iscrowd": int(crowd)} | annotation)

    def to_coco(self):
        """The dataset as COCO's json object, a dict; images sorted by name, all ids from 1.

        Raises:
            UserError: there is no image or no object.
        """
        reason = f", the first thing left out was: {self.problems[0].message}" if self.problems else "."
        if not self.pictures:
            raise UserError(f"{self.source} gives no image{reason}")
        if not any(picture.annotations for picture in self.pictures):
            raise UserError(f"{self.source} gives {len(self.pictures)} images and not a single object{reason}")
        images, annotations = [], []
        for number, picture in enumerate(sorted(self.pictures, key=lambda one: one.file_name), 1):
            size = {"width": picture.width, "height": picture.height}
            images.append({"id": number, "file_name": picture.file_name} | size)
            for annotation in picture.annotations:
                annotations.append({"id": len(annotations) + 1, "image_id": number} | annotation)
        categories = [
            {"id": number, "name": name} for name, number in sorted(self._ids.items(), key=lambda one: one[1])
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def write(self, out):
        """Writes COCO's json to `out`, whole or not at all; gives a Written and raises as `to_coco`."""
        coco = self.to_coco()
        with replaced(out) as path, open(path, "w", encoding="utf-8") as file:
            for place, (section, records) in enumerate(coco.items()):
                file.write(f'{", " if place else "{"}"{section}": [')
                # Record by record: the text of all would need as much memory again.
                for number, record in enumerate(records):
                    file.write((",\n" if number else "\n") + json.dumps(record, ensure_ascii=False))
                file.write("]")
            file.write("}\n")
        names = {category["id"]: category["name"] for category in coco["categories"]}
        classes = dict.fromkeys(names.values(), 0)
        for annotation in coco["annotations"]:
            classes[names[annotation["category_id"]]] += 1
        boxes = sum(not annotation["segmentation"] for annotation in coco["annotations"])
        return Written(len(coco["images"]), len(coco["annotations"]), boxes, classes, self.problems)

    def _label_problem(self, label):
        if not isinstance(label, str) or not label.strip():
            return "no_class", "has no class and was left out: give it a label"
        if self._fixed and label.strip() not in self._ids:
            what = f"has the class {label.strip()!r}, which --names lacks, and was left out: add it there"
            return "unknown_class", what
        return None
