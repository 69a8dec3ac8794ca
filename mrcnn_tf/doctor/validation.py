"""Looks a dataset over before it is trained on."""

import os

from mrcnn_tf.config import load_config
from mrcnn_tf.doctor.comparison import compare
from mrcnn_tf.doctor.examination import examine
from mrcnn_tf.doctor.reading import progress_bars
from mrcnn_tf.doctor.report import Report


def validate(annotations, images, val=None, config="mask_rcnn_r50_fpn", overrides=(), headers=None):
    """Finds what is wrong with a COCO dataset: what training would skip, what is probably a mistake, what to know.

    Nothing is changed and TensorFlow isn't imported.

    Args:
        annotations: a COCO json.
        images: the folder that its file names are relative to.
        val: (json, folder) of the validation set, which is looked over as well and compared: pictures in both, other
            categories. Then all pictures are decoded.
        config: name or path of the config to train by. Its resize rule, anchors, mask head and
            data.train.max_instances decide what is too small, too long or too much.
        overrides: of the config, such as "model.resize.min_size=512".
        headers: {path: data.image_files.ImageFile} of image files that an earlier examination has looked at.

    Returns:
        Report.

    Raises:
        UserError: a file or folder is missing, an archive, or not COCO's; or the config is wrong.
    """
    settings = load_config(config, list(overrides))
    with progress_bars() as bars:
        examinations = [examine(annotations, images, settings, bars, headers or {})]
        if val is None:
            return Report(examinations, [])
        examinations.append(examine(*val, settings, bars, headers or {}))
        forget_named(examinations)
        return Report(examinations, compare(*examinations, bars))


def forget_named(examinations):
    """Takes files that one json doesn't name but the other does out of the findings: both may share a folder."""
    named = {os.path.realpath(path) for one in examinations for path in one.images.headers}
    for one in examinations:
        for finding in one.findings:
            if finding.kind == "unlisted_file":
                finding.problems = [each for each in finding.problems if os.path.realpath(each.file) not in named]
        one.findings = [finding for finding in one.findings if finding.problems]
