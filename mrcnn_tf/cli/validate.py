"""`mrcnn-tf validate`: what is wrong with a dataset, and a mended copy of it."""

import json
import pathlib
from typing import Annotated

import typer

from mrcnn_tf.cli.options import AsJson, console
from mrcnn_tf.common.errors import UserError


def validate(
    annotations: Annotated[pathlib.Path, typer.Argument(help="A COCO json, of instances or panoptic.", metavar="JSON")],
    images: Annotated[
        pathlib.Path, typer.Argument(help="The folder that its file names are relative to.", metavar="IMAGES")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of the config, such as model.resize.min_size=512.")
    ] = None,
    val: Annotated[
        tuple[pathlib.Path, pathlib.Path] | None,
        typer.Option(help="The validation set, to look for pictures that are in both.", metavar="JSON IMAGES"),
    ] = None,
    maps: Annotated[
        pathlib.Path | None,
        typer.Option(help="The PNGs of a panoptic json or, beside one of instances, label maps.", metavar="FOLDER"),
    ] = None,
    val_maps: Annotated[pathlib.Path | None, typer.Option(help="The validation set's.", metavar="FOLDER")] = None,
    similar: Annotated[
        bool,
        typer.Option(
            "--similar",
            help="Look for near copies within a large set, too, such as resized pictures: all are decoded. With --val "
            "and in small sets they always are looked for.",
        ),
    ] = False,
    config: Annotated[
        str, typer.Option(help="What it is to be trained by; objects are compared with its anchors.")
    ] = "mask_rcnn_r50_fpn",
    fix: Annotated[bool, typer.Option("--fix", help="Write mended copies and fixes.jsonl, a log, to --out.")] = False,
    out: Annotated[pathlib.Path | None, typer.Option(help="The folder for problems.json, with every record.")] = None,
    as_json: AsJson = False,
):
    """Look a COCO dataset over: errors, probable mistakes, and what to do about each.

    Exit status: 0 if training can use every record (with --fix: of the copy),
    1 if it can't, 2 if there is no dataset to look at.
    """
    from mrcnn_tf.datasets.doctor import repair as repair_datasets
    from mrcnn_tf.datasets.doctor import validate as look_over

    if fix and out is None:
        raise UserError("Say where the mended copy should go: --out FOLDER.")
    if fix and (maps or val_maps):
        raise UserError("Nothing mends maps or what a panoptic json says of them: leave out --fix.")
    if val_maps and not val:
        raise UserError("--val-maps is the folder of another json's maps: name that json with --val JSON IMAGES.")
    report = look_over(annotations, images, val, config, overrides or [], maps=maps, val_maps=val_maps, similar=similar)
    if out:
        report.write(out / "problems.json")
    fixed = repair_datasets(report, out, config, overrides or []) if fix else None
    failed = (fixed.report if fixed else report).has_errors()
    if as_json:
        print(json.dumps(report.to_json() | ({"fixed": fixed.to_json()} if fixed else {}), ensure_ascii=False))
        raise typer.Exit(int(failed))
    console.print(report.table())
    if out:
        console.print(f"Every record: {out / 'problems.json'}", soft_wrap=True, markup=False)
    if fixed:
        console.print(fixed.table(), soft_wrap=True)
    elif any(finding.to_json()["fix"] for finding in report.findings):
        console.print("Add --fix --out FOLDER for a mended copy of the json.")
    raise typer.Exit(int(failed))
