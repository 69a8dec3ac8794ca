"""`mrcnn-tf convert coco-to labelme` and so on, and `convert tfrecord`: from COCO's json to other formats."""

import json
import os
import pathlib
import time
from typing import Annotated

import typer

from mrcnn_tf.cli.convert import FROM_COCO, convert_app, refuse_folder, report_left_out
from mrcnn_tf.cli.options import AsJson, console

coco_to_app = typer.Typer(help="Convert a COCO json to another tool's format.", no_args_is_help=True)
convert_app.add_typer(coco_to_app, name="coco-to", rich_help_panel=FROM_COCO)


def _report_own_numbers(counts, source):
    """Say on stderr which numbers of the annotations' own the written format has no place for; nothing for none."""
    from mrcnn_tf.common.problems import print_line

    if counts:
        names = ", ".join(f"{name!r} of {count}" for name, count in counts.items())
        print_line(
            f"{source}: the format has no place for numbers of the annotations' own, which were left out: {names}"
        )


def _report_keypoints(coco):
    """Say on stderr how many objects lose keypoints, which the format has no place for; returns their number."""
    from mrcnn_tf.common.problems import print_line

    count = sum(bool(annotation.keypoints) for image in coco.images for annotation in image.annotations)
    if count:
        print_line(f"{coco.source}: the format has no place for keypoints, which were left out of {count} objects")
    return count


@convert_app.command(rich_help_panel=FROM_COCO)
def tfrecord(
    annotations: Annotated[pathlib.Path, typer.Option(help="The COCO json.")],
    images: Annotated[pathlib.Path, typer.Option(help="The folder that its file names are relative to.")],
    out: Annotated[pathlib.Path, typer.Option(help="The folder for the records.")],
    name: Annotated[str, typer.Option(help="With which the files' names begin.")] = "train",
    shards: Annotated[int | None, typer.Option(min=1, max=99999, help="Default: a file for each 1000 images.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Default: one for each processor.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace records of other inputs.")] = False,
    as_json: AsJson = False,
):
    """TFRecords in the TensorFlow Model Garden's format. Repeat the command to go on where it stopped."""
    from mrcnn_tf.data.tfrecord_writer import write_records

    started = time.perf_counter()
    processes = processes or os.cpu_count() or 1
    written = write_records(annotations, images, out, name, shards, processes, force, progress=not as_json)
    seconds = time.perf_counter() - started
    _report_own_numbers(written.own_numbers, annotations)
    pattern, files = str(out / f"{name}-*.tfrecord"), len(written.files)
    if as_json:
        figures = {"records": pattern, "shards": files, "written": written.written, "images": written.images}
        figures |= {"objects": written.objects, "problems": len(written.problems), "own_numbers": written.own_numbers}
        print(json.dumps(figures | {"seconds": seconds}))
        return
    kept = f", {files - written.written} of them from before" if written.written < files else ""
    console.print(
        f"{written.images} images with {written.objects} objects in {files} files{kept}, in {seconds:.0f} s.\n"
        f"Train on them: data.train.records='{pattern}'",
        soft_wrap=True,
        markup=False,
    )


Source = Annotated[pathlib.Path, typer.Argument(help="The COCO json.")]
ImageFolder = Annotated[pathlib.Path, typer.Option(help="The folder that its file names are relative to.")]
ImagesToCopy = Annotated[pathlib.Path | None, typer.Option(help="The folder of the images, for --copy-images.")]
OutDir = Annotated[pathlib.Path, typer.Option(help="The new folder to write.")]
CopyImages = Annotated[
    bool, typer.Option("--copy-images", help="Put the images there too, by hard links where the disk has them.")
]


@coco_to_app.command("labelme")
def coco_to_labelme(
    source: Source, images: ImageFolder, out: OutDir, copy_images: CopyImages = False, as_json: AsJson = False
):
    """labelme 5.3 or later: a json for each image. Masks without outlines become mask shapes.

    Keypoints become points in their object's group. Back again, --names SOURCE keeps their order and the skeleton.
    """
    from mrcnn_tf.datasets.convert.labelme import write_labelme

    _convert_coco(source, write_labelme, out, as_json, images, copy_images, images=images)


@coco_to_app.command("via")
def coco_to_via(
    source: Source,
    images: ImageFolder,
    out: Annotated[pathlib.Path, typer.Option(callback=refuse_folder, help="The json to write.")],
    as_json: AsJson = False,
):
    """VGG Image Annotator 2: one json.

    Add the images to a project, then choose Annotation > Import Annotations (from json).
    """
    from mrcnn_tf.datasets.convert.via import write_via

    _convert_coco(source, write_via, out, as_json, images, images=images)


@coco_to_app.command("yolo")
def coco_to_yolo(
    source: Source, out: OutDir, images: ImagesToCopy = None, copy_images: CopyImages = False, as_json: AsJson = False
):
    """YOLO, Ultralytics' form: labels/ and data.yaml. Without --copy-images, put your images into images/.

    Outlines where there are masks; else boxes, with their keypoints where all classes have as many.

    data.yaml names one folder for train and val: convert your validation set to another, and set val to it.
    """
    from mrcnn_tf.datasets.convert.yolo import write_yolo

    _convert_coco(source, write_yolo, out, as_json, images, copy_images, images=images)


@coco_to_app.command("voc")
def coco_to_voc(
    source: Source,
    out: OutDir,
    images: ImagesToCopy = None,
    copy_images: CopyImages = False,
    split: Annotated[str, typer.Option(help="The name of the lists in ImageSets.")] = "train",
    as_json: AsJson = False,
):
    """Pascal VOC: boxes in xml files and masks in PNGs, where of objects that overlap the smaller one is on top."""
    from mrcnn_tf.datasets.convert.voc import write_voc

    _convert_coco(source, write_voc, out, as_json, images, copy_images, split, images=images)


@coco_to_app.command("label-maps")
def coco_to_label_maps(
    source: Source,
    out: OutDir,
    class_divisor: Annotated[int, typer.Option(min=2, help="Pixels are class id * this + object.")] = 1000,
    as_json: AsJson = False,
):
    """Label maps: a 16-bit PNG for each image, where of objects that overlap the smaller one is on top.

    names.json lists the classes, for --names when the maps are converted back.
    """
    from mrcnn_tf.datasets.convert.label_map_folders import write_label_maps

    _convert_coco(source, write_label_maps, out, as_json, class_divisor)


@coco_to_app.command("masks")
def coco_to_masks(
    source: Source, out: OutDir, images: ImagesToCopy = None, copy_images: CopyImages = False, as_json: AsJson = False
):
    """Masks: a black and white picture of each object, NAME/masks/CLASS/1.png, 2.png, ... for an image NAME.jpg."""
    from mrcnn_tf.datasets.convert.mask_folders import write_mask_folders

    _convert_coco(source, write_mask_folders, out, as_json, images, copy_images, images=images)


def _convert_coco(source, write, out, as_json, *arguments, images=None):
    """Have `write` put a COCO json into another format, and print how much it is and what was left out."""
    from mrcnn_tf.datasets.convert.coco import read_coco

    coco = read_coco(source, images)
    write(coco, out, *arguments)
    problems = report_left_out(coco.problems, out, coco.source)
    _report_own_numbers(coco.own_numbers, coco.source)
    lost_keypoints = 0 if coco.keeps_keypoints else _report_keypoints(coco)
    objects = sum(len(image.annotations) for image in coco.images)
    if as_json:
        figures = {"out": str(out), "images": len(coco.images), "objects": objects, "problems": problems}
        figures |= {"own_numbers": coco.own_numbers, "lost_keypoints": lost_keypoints}
        print(json.dumps(figures, ensure_ascii=False))
        return
    text = f"{len(coco.images)} images, {objects} objects, {len(coco.names)} classes: {out}"
    console.print(text, soft_wrap=True, markup=False, highlight=False)
