"""Counts the multiplications and additions of the model's convolutions and matrix products from its layers' kernels.

RoIAlign, proposals, suppression and everything elementwise is left out: what is counted runs at the rate of a matrix
product at best, so that the count over that rate bounds the time from below.
"""

import math


def inference_operations(model, height, width):
    """Operations (two for each multiply-add) of one image of height x width pixels, by part of a `MaskRCNN`."""
    height, width = (32 * math.ceil(side / 32) for side in (height, width))
    config = model.config
    levels = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in (4, 8, 16, 32, 64)]
    counts = {
        "backbone": resnet_operations(model.backbone, height, width),
        "fpn": _pyramid(model.fpn, levels),
        "rpn": sum(_convolutions(_rpn_convs(model.rpn.head), rows * columns) for rows, columns in levels),
        "box_head": config.rpn.post_nms_test * _box_head(model.box_head),
    }
    if model.mask_head:
        counts["mask_head"] = config.detections.max_per_image * _mask_head(model.mask_head)
    return counts


def resnet_operations(backbone, height, width):
    """Operations of a `ResNet` on one image."""
    rows, columns = _halved(height, width)
    total = _convolutions([backbone.stem], rows * columns)
    rows, columns = _halved(rows, columns)  # the max pooling
    for block in (block for stage in backbone.stages for block in stage):
        before = rows, columns
        for conv in block.convs:
            rows, columns = _halved(rows, columns) if conv.strides == 2 else (rows, columns)
            total += _convolutions([conv], rows * columns)
        if block.shortcut:
            total += _convolutions([block.shortcut], math.prod(_strided(before, block.strides)))
    return total


def _strided(size, strides):
    return _halved(*size) if strides == 2 else size


def _halved(rows, columns):
    return math.ceil(rows / 2), math.ceil(columns / 2)


def _convolutions(convs, cells):
    """Of layers with a `kernel` that is applied at `cells` places: each of its numbers is used once at each of them."""
    return sum(2 * math.prod(conv.kernel.shape) * cells for conv in convs)


def _pyramid(fpn, levels):
    pairs = zip(fpn.lateral, fpn.output_convs, levels, strict=False)  # P6 has no convolution
    return sum(_convolutions([lateral, output], rows * columns) for lateral, output, (rows, columns) in pairs)


def _rpn_convs(head):
    return [*head.hidden, head.objectness, head.deltas]


def _box_head(head):
    """For each RoI."""
    dense = [*head.fcs, head.class_logits, head.box_deltas]
    return _convolutions(head.convs, head.config["pool_size"] ** 2) + _convolutions(dense, 1)


def _mask_head(head):
    """For each RoI; of the predictor only one class's kernel is applied, to four pixels for each cell."""
    cells, hidden = head.config["pool_size"] ** 2, head.kernel.shape[0]
    deconvolution = 2 * math.prod(head.deconv_kernel.shape) * cells
    return _convolutions(head.convs, cells) + deconvolution + 2 * hidden * 4 * cells
