"""Arguments that several commands share, and where they print."""

from typing import Annotated

import typer
from rich.console import Console

console = Console()

ConfigName = Annotated[
    str, typer.Argument(help="A config's name, such as mask_rcnn_r50_fpn, or the path of a YAML file.")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings such as train.steps=1000.")]
Weights = Annotated[
    str | None, typer.Option(help="What to start from: a model.keras, a published checkpoint, a preset or imagenet.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as json and nothing else.")]
