"""`mrcnn-tf convert`: datasets of other tools to COCO's json and back, and COCO's to TFRecords."""

import collections
import json
import os
import pathlib
import shlex
import time
from typing import Annotated

import typer

from mrcnn_tf.cli.convert_back import coco_to_app, no_folder
from mrcnn_tf.cli.options import AsJson, console

convert_app = typer.Typer(
    help="Convert datasets: annotations of other tools to a COCO json, which training reads, and back.",
    no_args_is_help=True,
)
convert_app.add_typer(coco_to_app, name="coco-to")

Out = Annotated[pathlib.Path, typer.Option(callback=no_folder, help="The COCO json to write.")]
Images = Annotated[
    pathlib.Path | None,
    typer.Option(help="The folder that holds all images. File names in the json are relative to it."),
]
Names = Annotated[
    pathlib.Path | None,
    typer.Option(
        help="The classes, so that they get the same ids each time: a text file with one on each line, or the COCO "
        "json of your training set when you convert the validation set."
    ),
]
ClassName = Annotated[str | None, typer.Option(help="The class of all objects.")]
SplitParts = Annotated[
    bool, typer.Option("--split-parts", help="Make an object of each part that doesn't touch the others.")
]


@convert_app.command()
def labelme(
    source: Annotated[pathlib.Path, typer.Argument(help="The folder with labelme's json files.")],
    out: Out,
    images: Images = None,
    names: Names = None,
    as_json: AsJson = False,
):
    """A json beside each image. Polygons, rectangles, circles, masks; shapes of one group are one object."""
    from mrcnn_tf.datasets.convert.dataset import read_names
    from mrcnn_tf.datasets.convert.labelme import read_labelme

    _finish(read_labelme(source, images, read_names(names)), out, images or _folder_of(source), as_json)


@convert_app.command()
def via(
    source: Annotated[pathlib.Path, typer.Argument(help="The json or csv file that VIA saved, version 1 or 2.")],
    out: Out,
    images: Images = None,
    names: Names = None,
    class_attribute: Annotated[
        str | None,
        typer.Option(help="The region attribute that is the class. Default: the only one, or the likely one."),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option(help="The class of all objects, if regions have no attributes.")
    ] = None,
    as_json: AsJson = False,
):
    """VGG Image Annotator: one file for all images, a project or exported annotations, with the images beside it."""
    from mrcnn_tf.datasets.convert.dataset import read_names
    from mrcnn_tf.datasets.convert.via import read_via

    dataset = read_via(source, images, read_names(names), class_attribute, class_name)
    _finish(dataset, out, images or _folder_of(source), as_json)


@convert_app.command()
def yolo(
    source: Annotated[pathlib.Path, typer.Argument(help="The dataset's folder, or its data.yaml.")],
    out: Out,
    split: Annotated[str | None, typer.Option(help="train, val or test, where data.yaml names several.")] = None,
    images: Images = None,
    names: Names = None,
    as_json: AsJson = False,
):
    """Ultralytics' datasets: images/ and labels/ with outlines, or boxes, in a text file for each image."""
    from mrcnn_tf.datasets.convert.dataset import read_names
    from mrcnn_tf.datasets.convert.yolo import read_yolo

    _finish(read_yolo(source, images, read_names(names), split), out, images or _folder_of(source), as_json)


@convert_app.command()
def voc(
    source: Annotated[pathlib.Path, typer.Argument(help="The dataset's folder, which holds Annotations.")],
    out: Out,
    split: Annotated[
        str | None, typer.Option(help="A list in ImageSets, such as train or val. Default: all images.")
    ] = None,
    images: Images = None,
    names: Names = None,
    zero_based: Annotated[
        bool, typer.Option("--zero-based", help="Boxes count pixels from 0 and end before xmax and ymax.")
    ] = False,
    as_json: AsJson = False,
):
    """Pascal VOC: boxes in Annotations/*.xml, masks in SegmentationObject/*.png. Difficult objects are kept."""
    from mrcnn_tf.datasets.convert.dataset import read_names
    from mrcnn_tf.datasets.convert.voc import read_voc

    dataset = read_voc(source, images, read_names(names), split, zero_based)
    pictures = source / "JPEGImages"
    _finish(dataset, out, images or (pictures if pictures.is_dir() else _folder_of(source)), as_json)


@convert_app.command()
def label_maps(
    source: Annotated[pathlib.Path, typer.Argument(help="The folder with the maps, a PNG for each image.")],
    out: Out,
    images: Images = None,
    class_name: ClassName = None,
    names: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Instead of --class-name: a json or yaml file {number: class}, or a list that begins with 1."
        ),
    ] = None,
    class_divisor: Annotated[
        int | None, typer.Option(min=2, help="1000 if pixels are class * 1000 + object, as in Cityscapes.")
    ] = None,
    ignore: Annotated[list[int] | None, typer.Option(help="A number that is no object, such as 255.")] = None,
    split_parts: SplitParts = False,
    ending: Annotated[
        str | None, typer.Option(help="What a map's name has after its image's. Default: _mask, _label and the like.")
    ] = None,
    as_json: AsJson = False,
):
    """A PNG for each image, whose pixels are numbers: one for each object, 0 for background.

    If a number stands for a class and not for one object, use --names and --split-parts.
    """
    from mrcnn_tf.datasets.convert.dataset import read_names
    from mrcnn_tf.datasets.convert.label_maps import read_label_maps

    numbers = read_names(names, first=1)
    dataset = read_label_maps(source, images, numbers, class_name, class_divisor, ignore or (), split_parts, ending)
    _finish(dataset, out, images, as_json)


@convert_app.command()
def masks(
    source: Annotated[pathlib.Path, typer.Argument(help="The folder with masks and images.")],
    out: Out,
    images: Images = None,
    class_name: ClassName = None,
    names: Names = None,
    split_parts: SplitParts = False,
    as_json: AsJson = False,
):
    """Black and white pictures, one for each object.

    ID/images/x.png with ID/masks/*.png (2018 Data Science Bowl); images/x.jpg with masks/x_1.png; x.jpg with
    x_mask_1.png beside it. A folder within masks, as in masks/cat/x_1.png, is the class.
    """
    from mrcnn_tf.datasets.convert.dataset import read_names
    from mrcnn_tf.datasets.convert.mask_folders import read_mask_folders

    dataset = read_mask_folders(source, images, read_names(names), class_name, split_parts)
    _finish(dataset, out, images or source, as_json)


@convert_app.command()
def tfrecord(
    annotations: Annotated[pathlib.Path, typer.Option(help="The COCO json.")],
    images: Annotated[pathlib.Path, typer.Option(help="The folder that its file names are relative to.")],
    out: Annotated[pathlib.Path, typer.Option(help="The folder for the records.")],
    name: Annotated[str, typer.Option(help="With which the files' names begin.")] = "train",
    shards: Annotated[
        int | None, typer.Option(min=1, max=99999, help="Number of files. Default: one for each 1000 images.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Default: one for each processor.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace records of other inputs.")] = False,
    as_json: AsJson = False,
):
    """Write a COCO dataset as TFRecords in the TensorFlow Model Garden's format. Repeat the command to go on."""
    from mrcnn_tf.data.tfrecord_writer import write_records

    started = time.perf_counter()
    processes = processes or os.cpu_count() or 1
    made = write_records(annotations, images, out, name, shards, processes, force, progress=not as_json)
    seconds = time.perf_counter() - started
    pattern = str(out / f"{name}-*.tfrecord")
    if as_json:
        figures = {"records": pattern, "shards": len(made.files), "written": made.written, "images": made.images}
        print(json.dumps(figures | {"objects": made.objects, "problems": len(made.problems), "seconds": seconds}))
        return
    kept = f", {len(made.files) - made.written} of them from before" if made.written < len(made.files) else ""
    console.print(
        f"{made.images} images with {made.objects} objects in {len(made.files)} files{kept}, in {seconds:.0f} s.\n"
        f"Train on them: data.train.records='{pattern}'",
        soft_wrap=True,
        markup=False,
    )


def _folder_of(source):
    return source if source.is_dir() else source.parent


def _finish(dataset, out, images, as_json):
    """Writes the json, tells what was left out, and what to do next."""
    from mrcnn_tf.common.problems import report_problems

    made = dataset.write(out)
    report_problems(made.problems, out.with_name(f"{out.stem}.problems.json"), dataset.source)
    if as_json:
        figures = {"out": str(out), "images": made.images, "objects": made.objects, "boxes_only": made.boxes_only}
        counts = collections.Counter(problem.kind for problem in made.problems)
        print(json.dumps(figures | {"classes": made.classes, "problems": counts}, ensure_ascii=False))
        return
    classes = ", ".join(f"{name} {count}" for name, count in made.classes.items())
    lines = [f"{made.images} images, {made.objects} objects, {len(made.classes)} classes ({classes}): {out}"]
    if made.boxes_only:
        lines.append(f"{made.boxes_only} objects have a box and no mask: a model with masks isn't trained on them.")
    lines.append(f"Check it: mrcnn-tf validate {_quoted(out)} {_quoted(images)}")
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def _quoted(path):
    return shlex.quote(str(path))
