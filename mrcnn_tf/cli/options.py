"""The model that a command uses: trained, exported or on a server."""

import pathlib
from typing import Annotated

import typer
from rich.console import Console

from mrcnn_tf.common.errors import UserError

# Arguments that several commands share, and where they print.
#

console = Console()

ConfigName = Annotated[
    str, typer.Argument(help="A config's name, such as mask_rcnn_r50_fpn, or the path of a YAML file.")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings such as train.steps=1000.")]
Weights = Annotated[
    str | None, typer.Option(help="What to start from: a model.keras, a published checkpoint, a preset or imagenet.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as json and nothing else.")]


ModelFile = Annotated[pathlib.Path | None, typer.Option(help="The model.keras to use.")]
SavedModelFolder = Annotated[
    pathlib.Path | None, typer.Option(help="In its place an exported folder, such as export/mask_rcnn.")
]
TFLiteFile = Annotated[
    pathlib.Path | None, typer.Option(help="In its place an exported model.tflite, or half of a split one.")
]


def check_choice(weights, saved_model, tflite):
    """Refuses none of the three, and several.

    Raises:
        UserError: one isn't given, or more than one.
    """
    given = [name for name, path in {"weights": weights, "saved-model": saved_model, "tflite": tflite}.items() if path]
    if len(given) != 1:
        what = f"--{' and --'.join(given)} are too many" if given else "There is no model"
        raise UserError(f"{what}: give --weights MODEL.keras, --saved-model FOLDER or --tflite MODEL.tflite.")


def open_model(weights, saved_model, tflite):
    """The model in one of three places, and what knows its `categories`, `stuff` and `resize`.

    Raises:
        UserError: none or several are given, or it can't be read.
    """
    check_choice(weights, saved_model, tflite)
    if weights:
        from mrcnn_tf.training.trainer import load_model

        model = load_model(weights)
        return model, model.config
    if saved_model:
        from mrcnn_tf.serving.runtime import SavedModelRuntime

        model = SavedModelRuntime(saved_model)
    else:
        from mrcnn_tf.serving.tflite_model import TFLiteModel

        model = TFLiteModel(tflite)
    return model, model


def open_server(address, labels, name, timeout):
    """A `ServedModel`.

    Raises:
        UserError: no labels, or an address that isn't one.
    """
    from mrcnn_tf.serving.server_client import ServedModel

    if labels is None:
        raise UserError("A server doesn't say what its classes are called: give --labels, the exported folder.")
    return ServedModel(address, labels, model=name, timeout=timeout)
