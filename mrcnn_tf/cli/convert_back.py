"""`mrcnn-tf convert coco-to`: a COCO json to other tools' formats."""

import collections
import json
import pathlib
from typing import Annotated

import typer

from mrcnn_tf.cli.options import AsJson, console
from mrcnn_tf.common.errors import UserError

coco_to_app = typer.Typer(help="Convert a COCO json to another tool's format.", no_args_is_help=True)


def no_folder(path):
    """`path`, where a file is to be written; raises UserError if it is a folder."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder: name the json to write, such as {path / 'train.json'}.")
    return path


Source = Annotated[pathlib.Path, typer.Argument(help="The COCO json.")]
Images = Annotated[pathlib.Path, typer.Option(help="The folder that its file names are relative to.")]
ImagesToCopy = Annotated[pathlib.Path | None, typer.Option(help="The folder of the images, for --copy-images.")]
Out = Annotated[pathlib.Path, typer.Option(help="The new folder to write.")]
CopyImages = Annotated[
    bool,
    typer.Option("--copy-images", help="Put the images into the folder too, by hard links where the disk has them."),
]


@coco_to_app.command()
def labelme(source: Source, images: Images, out: Out, copy_images: CopyImages = False, as_json: AsJson = False):
    """A json for each image, for labelme 5.3 or later. Masks without outlines become mask shapes."""
    from mrcnn_tf.datasets.convert.coco import read_coco
    from mrcnn_tf.datasets.convert.labelme import write_labelme

    coco = read_coco(source)
    write_labelme(coco, out, images, copy_images)
    _finish(coco, out, as_json)


@coco_to_app.command()
def via(
    source: Source,
    images: Images,
    out: Annotated[pathlib.Path, typer.Option(callback=no_folder, help="The json to write.")],
    as_json: AsJson = False,
):
    """One json for VIA 2: add the images to a project, then Annotation > Import Annotations (from json)."""
    from mrcnn_tf.datasets.convert.coco import read_coco
    from mrcnn_tf.datasets.convert.via import write_via

    coco = read_coco(source)
    write_via(coco, out, images)
    _finish(coco, out, as_json)


@coco_to_app.command()
def yolo(
    source: Source, out: Out, images: ImagesToCopy = None, copy_images: CopyImages = False, as_json: AsJson = False
):
    """labels/ and data.yaml for Ultralytics' segmentation. Without --copy-images, put your images into images/.

    data.yaml names one folder for train and val: convert your validation set to another, and set val to it.
    """
    from mrcnn_tf.datasets.convert.coco import read_coco
    from mrcnn_tf.datasets.convert.yolo import write_yolo

    coco = read_coco(source)
    write_yolo(coco, out, images, copy_images)
    _finish(coco, out, as_json)


@coco_to_app.command()
def voc(
    source: Source,
    out: Out,
    images: ImagesToCopy = None,
    copy_images: CopyImages = False,
    split: Annotated[str, typer.Option(help="The name of the lists in ImageSets.")] = "train",
    as_json: AsJson = False,
):
    """Pascal VOC: boxes in xml files and masks in PNGs, where of objects that overlap the smaller one is on top."""
    from mrcnn_tf.datasets.convert.coco import read_coco
    from mrcnn_tf.datasets.convert.voc import write_voc

    coco = read_coco(source)
    write_voc(coco, out, images, copy_images, split)
    _finish(coco, out, as_json)


@coco_to_app.command()
def label_maps(
    source: Source,
    out: Out,
    class_divisor: Annotated[int, typer.Option(min=2, help="Pixels are class id * this + object.")] = 1000,
    as_json: AsJson = False,
):
    """A 16-bit PNG for each image, where of objects that overlap the smaller one is on top, and names.json."""
    from mrcnn_tf.datasets.convert.coco import read_coco
    from mrcnn_tf.datasets.convert.label_maps import write_label_maps

    coco = read_coco(source)
    write_label_maps(coco, out, class_divisor)
    _finish(coco, out, as_json)


@coco_to_app.command()
def masks(
    source: Source, out: Out, images: ImagesToCopy = None, copy_images: CopyImages = False, as_json: AsJson = False
):
    """NAME/masks/CLASS/1.png, 2.png, ... for each image NAME.jpg: an exact black and white picture of each object."""
    from mrcnn_tf.datasets.convert.coco import read_coco
    from mrcnn_tf.datasets.convert.mask_folders import write_mask_folders

    coco = read_coco(source)
    write_mask_folders(coco, out, images, copy_images)
    _finish(coco, out, as_json)


def _finish(coco, out, as_json):
    from mrcnn_tf.common.problems import report_problems

    report_problems(coco.problems, out.with_name(f"{out.stem}.problems.json"), coco.source)
    objects = sum(len(image.instances) for image in coco.images)
    if as_json:
        counts = collections.Counter(problem.kind for problem in coco.problems)
        figures = {"out": str(out), "images": len(coco.images), "objects": objects, "problems": counts}
        print(json.dumps(figures, ensure_ascii=False))
        return
    text = f"{len(coco.images)} images, {objects} objects, {len(coco.names)} classes: {out}"
    console.print(text, soft_wrap=True, markup=False, highlight=False)
