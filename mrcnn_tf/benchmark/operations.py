"""Counts the multiplications and additions of the model's convolutions and matrix products from its layers' kernels.

RoIAlign, proposals, suppression and everything elementwise is left out: what is counted runs at the rate of a matrix
product at best, so that the count over that rate bounds the time from below.
"""

import math


def inference_operations(model, height, width):
    """Operations (two for each multiply-add) of one image of height x width pixels, by part of a `MaskRCNN`.

    A keras.applications backbone isn't counted; res5 as a head counts with the box and the mask head that read it.
    """
    height, width = (model.divisor * math.ceil(side / model.divisor) for side in (height, width))
    config, counts = model.config, {}
    strides = (model.rpn or model.semantic_head).strides
    levels = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]
    if not config.backbone.application:
        counts["backbone"] = resnet_operations(model.backbone, height, width)
    if model.fpn:
        counts["fpn"] = _pyramid(model.fpn, levels)
    if model.rpn:
        counts |= _instances(model, levels)
    if model.semantic_head:
        counts["semantic_head"] = _semantic_head(model.semantic_head, levels)
    return counts


def _instances(model, levels):
    """Of what finds boxes, masks and keypoints."""
    config = model.config
    counts = {"rpn": sum(_convolutions(_rpn_convs(model.rpn.head), rows * columns) for rows, columns in levels)}
    res5 = _res5(model.box_features) if config.features == "C4" else 0
    counts["box_head"] = config.rpn.post_nms_test * (res5 + _box_head(model.box_head))
    if model.mask_head:
        mask_head = _perceptron(model.mask_head) if config.mask_head.fcs else _mask_head(model.mask_head)
        counts["mask_head"] = config.detections.max_per_image * (res5 + mask_head)
    if model.keypoint_head:
        counts["keypoint_head"] = config.detections.max_per_image * _keypoint_head(model.keypoint_head)
    return counts


def resnet_operations(backbone, height, width):
    """Operations of a `ResNet` on one image."""
    size = _halved(height, width)
    total = _convolutions([backbone.stem], math.prod(size))
    blocks = [block for stage in backbone.stages for block in stage]
    return total + _residual(blocks, *_halved(*size))  # after the max pooling


def _residual(blocks, rows, columns):
    total = 0
    for block in blocks:
        before = rows, columns
        for conv in block.convs:
            rows, columns = _strided((rows, columns), conv.strides)
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


def _res5(features):
    """For each RoI."""
    side = features.roi_layer.output_size
    return _residual(features.blocks, side, side)


def _box_head(head):
    """For each RoI."""
    dense = [*head.fcs, head.class_logits, head.box_deltas]
    return _convolutions(head.convs, head.config["pool_size"] ** 2) + _convolutions(dense, 1)


def _mask_head(head):
    """For each RoI; of the predictor only one class's kernel is applied, to four pixels for each cell."""
    cells, hidden = head.config["pool_size"] ** 2, head.kernel.shape[0]
    deconvolution = 2 * math.prod(head.deconv_kernel.shape) * cells
    maps = head.kernel.shape[1] if head.multinomial else 1
    return _convolutions(head.convs, cells) + deconvolution + 2 * hidden * maps * 4 * cells


def _perceptron(head):
    """For each RoI, the masks of all classes."""
    return _convolutions([*head.fcs, head], 1)


def _keypoint_head(head):
    """For each RoI, before the heatmaps are enlarged."""
    return _convolutions([*head.convs, head], head.config["pool_size"] ** 2)


def _semantic_head(head, levels):
    """Each convolution of a level runs on the next finer level's cells; the classifier on the finest and the next."""
    cells = [rows * columns for rows, columns in levels]
    total = _convolutions([head.predictor], sum(cells[:2]))
    for level, convs in enumerate(head.levels):
        total += sum(_convolutions([conv], cells[level - number]) for number, conv in enumerate(convs))
    return total
