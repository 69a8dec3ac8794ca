"""The command line, `mrcnn-tf`: the application and its entry point `main()`. Each group of commands has a file.

A command is a few lines over the API. TensorFlow is imported inside the commands, so that help and mistakes in the
arguments are answered at once.
"""

import importlib
import os
import sys
from typing import Annotated

import typer

from mrcnn_tf.cli import benchmark, convert_from_coco, demo, export, inspect, predict, train, validate
from mrcnn_tf.cli.benchmark_processes import own_modules
from mrcnn_tf.cli.options import console
from mrcnn_tf.common.errors import UserError

app = typer.Typer(
    help="Mask R-CNN for TensorFlow and Keras 3: import weights, train, evaluate, predict, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    demo.demo,
    train.train,
    train.import_weights,
    predict.evaluate,
    predict.predict,
    inspect.inspect,
    validate.validate,
    benchmark.benchmark,
):
    app.command()(command)
app.add_typer(convert_from_coco.convert_app, name="convert")
app.add_typer(export.export_app, name="export")


@app.callback()
def import_modules(
    context: typer.Context,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import a module of yours first, installed or in this folder: with heads, backbones and other parts "
            "that configs name or models were saved with. May be given several times.",
        ),
    ] = None,
):
    for name in modules or ():
        _import_module(name)
    own_modules.extend(modules or ())
    context.call_on_close(own_modules.clear)


def _import_module(name):
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a script's own folder is there, not the one that it is run in
    try:
        importlib.import_module(name)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(
            f"--import {name} didn't work ({error}): give a module that Python finds in this folder or among what is "
            "installed, as in an import statement, without .py."
        ) from error


@app.command()
def build_ops(
    cuda: Annotated[
        str | None,
        typer.Option(help="CUDA architectures, such as 80,90, or none. Default: all usual ones where nvcc is found."),
    ] = None,
):
    """Compile this package's own operations for the TensorFlow that is installed, and load them."""
    from mrcnn_tf.ops.native.builder import parse_architectures
    from mrcnn_tf.ops.native.library import build_and_try

    library = build_and_try(parse_architectures(cuda))
    code = "".join(f", sm_{number}" for number in library.architectures)
    console.print(f"Works: {library.path}", soft_wrap=True)
    console.print(f"Built for the CPU{code}{' and PTX' if code else ''}.")


def main():
    """Runs the command; a user's mistake ends with one sentence and exit status 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes on its build help nobody here
    try:
        app()
    except UserError as error:
        print(f"mrcnn-tf: {error}", file=sys.stderr)
        sys.exit(2)
