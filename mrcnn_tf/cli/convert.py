"""`mrcnn-tf convert labelme` and so on: from the formats of other tools to COCO's json."""

import collections
import json
import pathlib
import shlex
from typing import Annotated

import typer

from mrcnn_tf.cli.options import AsJson, console
from mrcnn_tf.common.errors import UserError

convert_app = typer.Typer(
    help="Convert datasets: annotations of other tools to a COCO json, which training reads, and back.",
    no_args_is_help=True,
)
# Under which `convert --help` lists the commands.
FROM_TOOLS = "To a COCO json, from a tool's own format"
FROM_FORMS = "To a COCO json, from what many tools write"
FROM_SETS = "To a COCO json, from public datasets"
FROM_COCO = "From a COCO json"


def refuse_folder(path):
    """`path`, where a file is to be written; raises UserError if it is a folder."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder: name the json to write, such as {path / 'train.json'}.")
    return path


JsonOut = Annotated[pathlib.Path, typer.Option("--out", callback=refuse_folder, help="The COCO json to write.")]
Images = Annotated[
    pathlib.Path | None,
    typer.Option(help="The folder that holds all images. The json's file names are relative to it."),
]
Names = Annotated[
    pathlib.Path | None,
    typer.Option(
        help="The classes, so that they get the same ids each time: a text file with one on each line, or the COCO "
        "json of your training set when you convert the validation set."
    ),
]
ClassName = Annotated[str | None, typer.Option(help="The class of all objects.")]
SplitParts = Annotated[bool, typer.Option("--split-parts", help="Make each part that touches no other an object.")]


@convert_app.command(rich_help_panel=FROM_TOOLS)
def labelme(
    source: Annotated[pathlib.Path, typer.Argument(help="The folder with labelme's json files, or one of them.")],
    out: JsonOut,
    images: Images = None,
    names: Names = None,
    as_json: AsJson = False,
):
    """labelme: a json beside each image, with polygons, rectangles, circles, masks and points.

    Shapes of one label and group are one object, and points in its group are its keypoints. Pictures that are in their
    json alone are written to NAME_images beside NAME.json.
    """
    from mrcnn_tf.datasets.convert.labelme import read_labelme

    dataset = read_labelme(source, images, _read_names(names), out.with_name(f"{out.stem}_images"))
    _write_coco(dataset, out, images or _folder_of(source), as_json)


@convert_app.command(rich_help_panel=FROM_TOOLS)
def cvat(
    source: Annotated[pathlib.Path, typer.Argument(help="CVAT's annotations.xml, or the folder that holds it.")],
    out: JsonOut,
    split: Annotated[
        str | None, typer.Option(help="The split to convert, where there are several: a project's subset.")
    ] = None,
    images: Images = None,
    names: Names = None,
    as_json: AsJson = False,
):
    """CVAT: the xml of "CVAT for images", with polygons, masks, ellipses, boxes and skeletons.

    Shapes of one label and group are one object, and a skeleton's points are the keypoints of the shape in its group.
    """
    from mrcnn_tf.datasets.convert.cvat import IMAGES_NAME, read_cvat

    dataset = read_cvat(source, images, _read_names(names), split)
    photos = _folder_of(source) / IMAGES_NAME
    _write_coco(dataset, out, images or (photos if photos.is_dir() else _folder_of(source)), as_json)


@convert_app.command(rich_help_panel=FROM_TOOLS)
def label_studio(
    source: Annotated[pathlib.Path, typer.Argument(help="The json of the export, or a folder of several.")],
    out: JsonOut,
    images: Images = None,
    names: Names = None,
    as_json: AsJson = False,
):
    """Label Studio: the json of its exports JSON and JSON-MIN, with polygons, brushes, ellipses, boxes and keypoints.

    Of several annotations of a task, the one marked as ground truth or the latest is used. Images are found with and
    without the eight characters that Label Studio puts before their names.
    """
    from mrcnn_tf.datasets.convert.label_studio import read_label_studio

    _write_coco(read_label_studio(source, images, _read_names(names)), out, images or _folder_of(source), as_json)


@convert_app.command(rich_help_panel=FROM_TOOLS)
def via(
    source: Annotated[pathlib.Path, typer.Argument(help="The json or csv that VIA 1 or 2 saved, or its folder.")],
    out: JsonOut,
    images: Images = None,
    names: Names = None,
    class_attribute: Annotated[
        str | None, typer.Option(help="The region attribute that is the class. Default: the only or the likely one.")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option(help="The class of all objects, if regions have no attributes.")
    ] = None,
    as_json: AsJson = False,
):
    """VGG Image Annotator: the json or csv of a project or of exported annotations, with the images beside it."""
    from mrcnn_tf.datasets.convert.via import read_via

    dataset = read_via(source, images, _read_names(names), class_attribute, class_name)
    _write_coco(dataset, out, images or _folder_of(source), as_json)


@convert_app.command(rich_help_panel=FROM_FORMS)
def yolo(
    source: Annotated[pathlib.Path, typer.Argument(help="The dataset's folder, or its data.yaml.")],
    out: JsonOut,
    split: Annotated[
        str | None,
        typer.Option(
            help="The split to convert, where there are several: train, val or test; other for images outside of them."
        ),
    ] = None,
    images: Images = None,
    names: Names = None,
    as_json: AsJson = False,
):
    """YOLO, Ultralytics' form: images/, and labels/ with a text file for each image, of outlines, boxes or keypoints.

    Splits are those of data.yaml, or of folders and lists called train, val or test.
    """
    from mrcnn_tf.datasets.convert.yolo import find_dataset, read_yolo

    dataset = read_yolo(source, images, _read_names(names), split)
    _write_coco(dataset, out, images or find_dataset(source)[0], as_json)


@convert_app.command(rich_help_panel=FROM_FORMS)
def voc(
    source: Annotated[
        pathlib.Path, typer.Argument(help="The folder that holds Annotations, SegmentationObject or xml files.")
    ],
    out: JsonOut,
    split: Annotated[
        str | None,
        typer.Option(help="The split to convert: a list in ImageSets or a folder, such as train. Default: all."),
    ] = None,
    images: Images = None,
    names: Names = None,
    zero_based: Annotated[
        bool, typer.Option("--zero-based", help="Boxes count pixels from 0 and end before xmax and ymax.")
    ] = False,
    split_parts: Annotated[
        bool, typer.Option("--split-parts", help="Without SegmentationObject: make each part of a class an object.")
    ] = False,
    as_json: AsJson = False,
):
    """Pascal VOC: boxes in Annotations/*.xml, masks in SegmentationObject/*.png.

    Difficult objects are kept. Masks may be there without xml, as CVAT's "Segmentation mask" and labelme2voc have them:
    SegmentationClass gives the classes, labelmap.txt or class_names.txt their names. Outlines in an xml are read, too,
    as supervision, Roboflow and LabelMe have them.
    """
    from mrcnn_tf.datasets.convert.voc import find_photos, read_voc

    dataset = read_voc(source, images, _read_names(names, first=1), split, zero_based, split_parts)
    _write_coco(dataset, out, images or find_photos(source), as_json)


@convert_app.command(rich_help_panel=FROM_FORMS)
def masks(
    source: Annotated[pathlib.Path, typer.Argument(help="The folder with masks and images.")],
    out: JsonOut,
    images: Images = None,
    class_name: ClassName = None,
    names: Names = None,
    split_parts: SplitParts = False,
    as_json: AsJson = False,
):
    """Masks: a black and white picture for each object.

    ID/images/x.png with ID/masks/*.png (2018 Data Science Bowl); images/x.jpg with masks/x_1.png; x.jpg with
    x_mask_1.png beside it. A folder within masks, as in masks/cat/x_1.png, is the class.
    """
    from mrcnn_tf.datasets.convert.mask_folders import read_mask_folders

    dataset = read_mask_folders(source, images, _read_names(names), class_name, split_parts)
    _write_coco(dataset, out, images or source, as_json)


@convert_app.command(rich_help_panel=FROM_FORMS)
def label_maps(
    source: Annotated[pathlib.Path, typer.Argument(help="The folder with the maps, a PNG for each image.")],
    out: JsonOut,
    images: Images = None,
    class_name: ClassName = None,
    names: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Instead of --class-name: a json or yaml file {number: class}, or a list that begins with 1."
        ),
    ] = None,
    class_divisor: Annotated[int | None, typer.Option(min=2, help="1000 if pixels are class * 1000 + object.")] = None,
    ignore: Annotated[
        list[int] | None, typer.Option(help="A number that is no object, such as 255. Can be given several times.")
    ] = None,
    split_parts: SplitParts = False,
    ending: Annotated[
        str | None, typer.Option(help="What a map's name has after its image's. Default: _mask, _label and the like.")
    ] = None,
    as_json: AsJson = False,
):
    """Label maps: a PNG for each image, whose pixels are numbers: one for each object, 0 for background.

    If a number stands for a class and not for one object, use --names and --split-parts. Roboflow's masks need only
    --split-parts: x_mask.png lies beside x.jpg, and _classes.csv has the names.
    """
    from mrcnn_tf.datasets.convert.label_map_folders import read_label_maps

    numbers = _read_names(names, first=1)
    dataset = read_label_maps(source, images, numbers, class_name, class_divisor, ignore or (), split_parts, ending)
    _write_coco(dataset, out, images or source, as_json)


@convert_app.command("with", rich_help_panel=FROM_FORMS)
def with_reader(
    reader: Annotated[str, typer.Argument(help="The function, such as my_package.my_module:read.")],
    source: Annotated[pathlib.Path, typer.Argument(help="The file or folder that it reads.")],
    out: JsonOut,
    images: Images = None,
    names: Names = None,
    as_json: AsJson = False,
):
    """A format of your own: your function, installed or in the current folder, reads it into a Dataset.

    It is called as read(source, images, names); mrcnn_tf.datasets.convert says what these are and what it may use.
    """
    from mrcnn_tf.common.named_object import import_named
    from mrcnn_tf.datasets.convert.dataset import Dataset

    dataset = import_named(reader, "Reader")(source, images, _read_names(names))
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"Reader {reader!r} gave an object of type {type(dataset).__name__} for {source}: let it return a "
            "mrcnn_tf.datasets.convert.Dataset."
        )
    _write_coco(dataset, out, images or _folder_of(source), as_json)


@convert_app.command(rich_help_panel=FROM_SETS)
def cityscapes(
    source: Annotated[pathlib.Path, typer.Argument(help="The folder that holds gtFine and leftImg8bit.")],
    out: JsonOut,
    split: Annotated[
        str | None, typer.Option(help="The split to convert, where there are several: train, val or train_extra.")
    ] = None,
    images: Images = None,
    names: Names = None,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Draw *_polygons.json, instead of reading *_instanceIds.png.")
    ] = False,
    as_json: AsJson = False,
):
    """Cityscapes: its 8 classes with objects, under its own ids.

    Groups become crowds. Its panoptic json needs no conversion.
    """
    from mrcnn_tf.datasets.convert.cityscapes import read_cityscapes

    dataset = read_cityscapes(source, images, _read_names(names), split, polygons)
    _write_coco(dataset, out, images or source, as_json)


@convert_app.command(rich_help_panel=FROM_SETS)
def mapillary(
    source: Annotated[pathlib.Path, typer.Argument(help="The folder that holds the splits and config_v2.0.json.")],
    out: JsonOut,
    split: Annotated[
        str | None, typer.Option(help="The split to convert, where there are several: training or validation.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="The version to convert, where there are several: v1.2 or v2.0.")
    ] = None,
    images: Images = None,
    names: Names = None,
    as_json: AsJson = False,
):
    """Mapillary Vistas: its classes with objects, from SPLIT/VERSION/instances/*.png.

    Groups become crowds. Its panoptic json needs no conversion.
    """
    from mrcnn_tf.datasets.convert.mapillary import read_mapillary

    dataset = read_mapillary(source, images, _read_names(names), split, version)
    _write_coco(dataset, out, images or source, as_json)


@convert_app.command(rich_help_panel=FROM_SETS)
def open_images(
    source: Annotated[
        pathlib.Path,
        typer.Argument(help="The folder that holds *-annotations-object-segmentation.csv, class names and masks."),
    ],
    out: JsonOut,
    split: Annotated[
        str | None, typer.Option(help="The split to convert, where there are several: train, validation or test.")
    ] = None,
    images: Images = None,
    names: Names = None,
    as_json: AsJson = False,
):
    """Open Images: its masks, a PNG for each object, brought to the size of their images."""
    from mrcnn_tf.datasets.convert.open_images import read_open_images

    dataset = read_open_images(source, images, _read_names(names), split)
    _write_coco(dataset, out, images or _folder_of(source), as_json)


def _read_names(path, first=0):
    from mrcnn_tf.datasets.convert.dataset import read_names

    return read_names(path, first)


def _folder_of(source):
    return source if source.is_dir() else source.parent


def _write_coco(dataset, out, images, as_json):
    """Write a converted dataset as a COCO json; print its size, what was left out, and what to do next."""
    written = dataset.write(out)
    images = dataset.image_folder or images
    problems = report_left_out(written.problems, out, dataset.source)
    if as_json:
        figures = {"out": str(out), "images": written.images, "objects": written.objects}
        figures |= {"boxes_only": written.boxes_only, "classes": written.classes, "problems": problems}
        figures["image_folder"] = None if dataset.image_folder is None else str(dataset.image_folder)
        print(json.dumps(figures, ensure_ascii=False))
        return
    classes = ", ".join(f"{name} {count}" for name, count in written.classes.items())
    lines = [f"{written.images} images, {written.objects} objects, {len(written.classes)} classes ({classes}): {out}"]
    if written.boxes_only:
        lines.append(f"{written.boxes_only} objects have a box and no mask: a model with masks isn't trained on them.")
    if dataset.image_folder:
        lines.append(f"Some pictures were in their json alone: {images} now has all of them, by the names in {out}.")
    lines.append(f"Check it: mrcnn-tf validate {shlex.quote(str(out))} {shlex.quote(str(images))}")
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def report_left_out(problems, out, source):
    """List the records that were left out in NAME.problems.json beside `out`; returns their number by kind."""
    from mrcnn_tf.common.problems import report_problems

    report_problems(problems, out.with_name(f"{out.stem}.problems.json"), source)
    return collections.Counter(problem.kind for problem in problems)
