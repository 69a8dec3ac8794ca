"""Looks a dataset over before it is trained on."""

import os

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.config import load_config
from mrcnn_tf.datasets.doctor.comparison import compare
from mrcnn_tf.datasets.doctor.examination import examine
from mrcnn_tf.datasets.doctor.label_maps import check_map_folder
from mrcnn_tf.datasets.doctor.panoptic import examine_panoptic
from mrcnn_tf.datasets.doctor.reading import progress_bars
from mrcnn_tf.datasets.doctor.report import Report
from mrcnn_tf.datasets.doctor.sources import check_sources
from mrcnn_tf.datasets.panoptic_json import is_panoptic


def validate(
    annotations,
    images,
    val=None,
    config="mask_rcnn_r50_fpn",
    overrides=(),
    headers=None,
    maps=None,
    val_maps=None,
):
    """Finds what is wrong with a COCO dataset: what training would skip, what is probably a mistake, what to know.

    Nothing is changed and TensorFlow isn't imported.

    Args:
        annotations: a COCO json, of instances or panoptic.
        images: the folder that its file names are relative to.
        val: (json, folder) of the validation set, which is looked over as well and compared: pictures in both, other
            categories. Then all pictures are decoded.
        config: name or path of the config to train by. Its resize rule, anchors, mask head and
            data.train.max_instances decide what is too small, too long or too much.
        overrides: of the config, such as "model.resize.min_size=512".
        headers: {path: data.image_files.ImageFile} of image files that an earlier examination has looked at.
        maps: the folder of a panoptic json's PNGs or, beside one of instances, of label maps, whose values are ids of
            its categories and of the config's model.stuff. All of them are read.
        val_maps: the same of the validation set.

    Returns:
        Report.

    Raises:
        UserError: a file or folder is missing, an archive, or not COCO's; or the config is wrong.
    """
    settings = load_config(config, list(overrides))
    with progress_bars() as bars:
        examinations = [_examine(annotations, images, maps, settings, bars, headers or {})]
        if val is None:
            return Report(examinations, [])
        examinations.append(_examine(*val, val_maps, settings, bars, headers or {}))
        forget_named(examinations)
        return Report(examinations, compare(*examinations, bars))


def _examine(annotations, images, maps, settings, bars, headers):
    check_sources(os.fspath(annotations), os.fspath(images))
    if maps:
        check_map_folder(maps)
    try:
        panoptic = is_panoptic(annotations)
    except UserError:
        panoptic = False  # whoever reads all of it says what is wrong
    if not panoptic:
        return examine(annotations, images, settings, bars, headers, maps)
    if not maps:
        raise UserError(f"{annotations} is a panoptic json: name the folder of its PNGs with --maps or --val-maps.")
    return examine_panoptic(annotations, images, maps, settings, bars, headers)


def forget_named(examinations):
    """Takes files that one json doesn't name but the other does out of the findings: both may share a folder."""
    named = {os.path.realpath(path) for one in examinations for path in one.images.headers}
    for one in examinations:
        for finding in one.findings:
            if finding.kind == "unlisted_file":
                finding.problems = [each for each in finding.problems if os.path.realpath(each.file) not in named]
        one.findings = [finding for finding in one.findings if finding.problems]
