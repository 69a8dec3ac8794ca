"""What several commands share: arguments, where they print, and how they open the model that the user names."""

import pathlib
from typing import Annotated

import typer
from rich.console import Console

from mrcnn_tf.common.errors import UserError

console = Console()  # stdout; warnings and progress go to common.problems.CONSOLE

ConfigName = Annotated[str, typer.Argument(help="A config's name, such as mask_rcnn_r50_fpn, or a YAML file's path.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings such as train.steps=1000.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as json and nothing else.")]
ModelFile = Annotated[pathlib.Path | None, typer.Option(help="The model.keras to use.")]
SavedModelFolder = Annotated[pathlib.Path | None, typer.Option(help="Or an exported folder, as export/mask_rcnn.")]
TFLiteFile = Annotated[pathlib.Path | None, typer.Option(help="Or an exported model.tflite, or half of a split one.")]


def check_model_choice(weights, saved_model, tflite):
    """Raises UserError unless exactly one of the three paths is given."""
    options = {"weights": weights, "saved-model": saved_model, "tflite": tflite}
    given = [name for name, path in options.items() if path]
    if len(given) != 1:
        mistake = f"--{' and --'.join(given)} are too many" if given else "There is no model"
        raise UserError(f"{mistake}: give --weights MODEL.keras, --saved-model FOLDER or --tflite MODEL.tflite.")


def open_model(weights, saved_model, tflite):
    """Open the model at one of three paths: a `MaskRCNN`, a `SavedModelRuntime` or a `TFLiteModel`.

    All have `detect`, `detect_batch`, `categories`, `stuff`, `resize` and `gives`.
    Raises UserError if none or several are given, or it can't be read.
    """
    check_model_choice(weights, saved_model, tflite)
    if weights:
        from mrcnn_tf.model.mask_rcnn import load_model

        return load_model(weights)
    if saved_model:
        from mrcnn_tf.serving.runtime import SavedModelRuntime

        return SavedModelRuntime(saved_model)
    from mrcnn_tf.serving.tflite_model import TFLiteModel

    return TFLiteModel(tflite)


def open_server(address, labels, name, timeout):
    """A `ServedModel`; raises UserError without labels, or for an address that isn't one."""
    from mrcnn_tf.serving.server_client import ServedModel

    if labels is None:
        raise UserError("A server doesn't say what its classes are called: give --labels, the exported folder.")
    return ServedModel(address, labels, model=name, timeout=timeout)
