"""`mrcnn-tf train` and `mrcnn-tf import-weights`: the two ways to a model.keras."""

import json
import pathlib
from typing import Annotated

import typer

from mrcnn_tf.cli.options import AsJson, ConfigName, Overrides, console
from mrcnn_tf.common.errors import UserError


def train(
    config: ConfigName,
    overrides: Overrides = None,
    weights: Annotated[
        str | None, typer.Option(help="What to start from: model.keras, a published checkpoint, a preset or imagenet.")
    ] = None,
    out: Annotated[pathlib.Path | None, typer.Option(help="Default: runs/CONFIG.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint, if any.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Resume even with another config.")] = False,
):
    """Train a model by a config; evaluates and saves after each epoch. Ctrl-C saves; --resume goes on."""
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.training.callbacks import Interrupted
    from mrcnn_tf.training.trainer import train as run_training

    settings = load_config(config, overrides or [])
    folder = out or pathlib.Path("runs") / pathlib.Path(config).stem
    try:
        run = run_training(settings, folder, weights, resume, force)
    except Interrupted as interrupted:
        console.print(f"Stopped; everything is in {folder}. Go on with the same command and --resume.", soft_wrap=True)
        raise typer.Exit(interrupted.exit_code) from None
    console.print(f"Trained in {run.seconds:.0f} s. Model, config and history: {run.folder}", soft_wrap=True)


def import_weights(
    file: Annotated[str, typer.Argument(help="A published checkpoint (.pth, .pkl, .safetensors, .h5) or a preset.")],
    overrides: Overrides = None,
    out: Annotated[pathlib.Path | None, typer.Option(help="The model to write, ending in .keras.")] = None,
    source_config: Annotated[
        str | None,
        typer.Option(
            help="The training config that belongs to the file: detectron2's config.yaml, mmdetection's .py. Default: "
            "one beside the file. none: no config."
        ),
    ] = None,
    class_names: Annotated[
        str | None, typer.Option(help="The file's classes: names with commas between, or a text file with one a line.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Load into this config's model instead of the one that the file was made for.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option(help="Take what fits, set anew what doesn't, and skip tensors without a place.")
    ] = False,
    map_classes: Annotated[
        bool, typer.Option(help="With --config: keep the classifiers of classes that both know by name.")
    ] = False,
    file_settings: Annotated[
        list[str] | None,
        typer.Option("--file-setting", help="With --config: KEY=VALUE, what you know of the file. May be repeated."),
    ] = None,
    as_json: AsJson = False,
):
    """Make a model of weights of torchvision, detectron2, Detectron, mmdetection, matterport or keras.applications.

    Without --config the overrides say what the file was trained with: model.pixel_std=[1,1,1], file.pixel_order=RGB.
    """
    if out is None or out.suffix != ".keras":
        raise UserError("Say where the model should go: --out MODEL.keras.")
    from mrcnn_tf.common.files import atomic_write
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.model.mask_rcnn import MaskRCNN
    from mrcnn_tf.weights.pretrained import read_pretrained

    if file_settings and not config:
        raise UserError("--file-setting is for --config: without it, give what you know of the file as overrides.")
    statements = file_settings if config else overrides
    companion = False if source_config == "none" else source_config
    names = None if class_names is None else _read_names(class_names)
    source = read_pretrained(file, None, statements or (), companion, names)
    settings = load_config(config, overrides or []) if config else source.config()
    model = MaskRCNN.from_settings(settings.model)
    report = model.load_pretrained(source, allow_missing, map_classes, verbose=False)
    with atomic_write(out) as temporary:
        model.save(temporary)
    if as_json:
        print(json.dumps({"out": str(out)} | report.to_json()))
        return
    console.print(report.table())
    console.print(f"Model:   {out}\nTry it:  mrcnn-tf predict YOUR_IMAGE.png --weights {out}", soft_wrap=True)


def _read_names(text):
    """The names of classes in a file, one a line, or in the text itself, with commas between."""
    path = pathlib.Path(text)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    return [line.strip() for line in lines if line.strip()]
