"""How fast the processor multiplies, how much of that a detection asks for, and RoIAlign alone.

Counted are the multiplications and additions of the model's convolutions and matrix products, from its layers' kernels.
RoIAlign, proposals, suppression and everything elementwise is left out: what is counted runs at the rate of a matrix
product at best, so that the count over that rate bounds the time from below.
"""

import math

import tensorflow as tf

from benchmarks.inputs import ROI_BINS, ROI_SAMPLES, ROI_SIZES, ROI_STRIDE, random_features
from benchmarks.processes import timed
from mrcnn_tf import ops
from mrcnn_tf.cli.benchmark_measurements import benchmark_config, benchmark_model, random_boxes
from mrcnn_tf.cli.benchmark_processes import Task, serve
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.model.heads.box import BoxHead
from mrcnn_tf.model.heads.keypoint import KeypointHead
from mrcnn_tf.model.heads.mask import MaskHead, MaskMLP
from mrcnn_tf.model.heads.semantic import SemanticHead
from mrcnn_tf.model.necks import FPN
from mrcnn_tf.model.precision import dtype_policy
from mrcnn_tf.model.roi_features import Res5


def roofline(model=None, side=2048, rows=200, columns=272, channels=256):
    """Time a product of side x side matrices and the 3x3 convolution of a pyramid's map, in float32 and bfloat16.

    The facts hold `operations` (multiplications and additions) of each time, whether bfloat16 is native here and, with
    `model` (the arguments of `benchmark_config` by name), `image_operations`: see `count_inference_operations`.
    """
    native = dtype_policy("auto").name == "mixed_bfloat16"
    functions, operations = {}, {}
    for dtype in (tf.float32, tf.bfloat16) if native else (tf.float32,):
        matrix = tf.cast(tf.random.stateless_normal([side, side], [0, 0]), dtype)
        cells = tf.cast(tf.random.stateless_normal([1, rows, columns, channels], [0, 1]), dtype)
        kernel = tf.cast(tf.random.stateless_normal([3, 3, channels, channels], [0, 2]), dtype)
        functions[f"product_{dtype.name}"] = _compile(tf.matmul, matrix, matrix)
        functions[f"convolution_{dtype.name}"] = _compile(_convolve, cells, kernel)
        operations[f"product_{dtype.name}"] = 2 * side**3
        operations[f"convolution_{dtype.name}"] = 2 * 9 * channels**2 * rows * columns
    facts = {"operations": operations, "native_bfloat16": native}
    if model:
        detector = benchmark_model(benchmark_config(**model), "float32")
        facts["image_operations"] = count_inference_operations(detector, model["height"], model["width"])
    return Task(timed(**functions), facts)


def _convolve(cells, kernel):
    return tf.nn.conv2d(cells, kernel, 1, "SAME")


def _compile(function, *tensors):
    compiled = tf.function(function)
    return lambda: compiled(*tensors)


def count_inference_operations(model, height, width):
    """Count operations (two for each multiply-add) on one image of height x width pixels, by stage of a `MaskRCNN`.

    Parts of other kinds than the package's, and networks of keras.applications, aren't counted. Res5 counts as the RoI
    features of each head that reads it.
    """
    divisor, features = model.preprocess.divisor, model.features
    height, width = (divisor * math.ceil(side / divisor) for side in (height, width))
    levels = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in model.spec.strides.values()]
    counts, backbone = {}, getattr(features, "backbone", features)
    if isinstance(backbone, ResNet):
        counts["backbone"] = count_resnet_operations(backbone, height, width)
    if isinstance(features, FPN):
        counts["fpn"] = _count_fpn(features, levels)
    if model.rpn:
        counts["rpn_head"] = sum(_count_convolutions(_rpn_convs(model.rpn.head), math.prod(level)) for level in levels)
    regions = model.rpn and model.rpn.settings.post_nms_test
    for head in model.heads:
        if isinstance(head.pooling, Res5):
            counts[f"{head.name}_features"] = regions * _count_res5(head.pooling)
        if isinstance(head, SemanticHead):
            counts[head.name] = _count_semantic_head(head, levels)
        elif type(head) in OF_HEADS:
            counts[head.name] = regions * OF_HEADS[type(head)](head)
        if isinstance(head, BoxHead):
            regions = head.detections.max_per_image
    return counts


def count_resnet_operations(backbone, height, width):
    """Count operations of a `ResNet` on one image."""
    size = _half(height, width)
    total = _count_convolutions([backbone.stem], math.prod(size))
    blocks = [block for stage in backbone.stages for block in stage]
    return total + _count_residual(blocks, *_half(*size))  # after the max pooling


def _count_residual(blocks, rows, columns):
    total = 0
    for block in blocks:
        before = rows, columns
        for conv in block.convs:
            rows, columns = _output_size((rows, columns), conv.strides)
            total += _count_convolutions([conv], rows * columns)
        if block.shortcut:
            total += _count_convolutions([block.shortcut], math.prod(_output_size(before, block.strides)))
    return total


def _output_size(size, strides):
    return _half(*size) if strides == 2 else size


def _half(rows, columns):
    return math.ceil(rows / 2), math.ceil(columns / 2)


def _count_convolutions(convs, cells):
    """Of layers whose `kernel` is applied to `cells` cells: each of its weights is used once in each of them."""
    return sum(2 * math.prod(conv.kernel.shape) * cells for conv in convs)


def _count_fpn(fpn, levels):
    pairs = zip(fpn.lateral, fpn.output_convs, levels, strict=False)  # P6 has no convolution
    return sum(_count_convolutions([lateral, output], rows * columns) for lateral, output, (rows, columns) in pairs)


def _rpn_convs(head):
    return [*head.hidden, head.objectness, head.deltas]


def _count_res5(features):
    """For each RoI."""
    side = features.roi_layer.output_size
    return _count_residual(features.blocks, side, side)


def _count_box_head(head):
    """For each RoI."""
    dense = [*head.fcs, head.class_logits, head.box_deltas]
    return _count_convolutions(head.convs, head.pooling.output_size**2) + _count_convolutions(dense, 1)


def _count_mask_head(head):
    """For each RoI; of the predictor only one class's kernel is applied, to four pixels for each cell."""
    cells, hidden = head.pooling.output_size**2, head.kernel.shape[0]
    deconvolution = 2 * math.prod(head.deconv_kernel.shape) * cells
    maps = head.kernel.shape[1] if head.multinomial else 1
    return _count_convolutions(head.convs, cells) + deconvolution + 2 * hidden * maps * 4 * cells


def _count_mask_mlp(head):
    """For each RoI, the masks of all classes."""
    return _count_convolutions([*head.fcs, head], 1)


def _count_keypoint_head(head):
    """For each RoI, before the heatmaps are enlarged."""
    return _count_convolutions([*head.convs, head], head.pooling.output_size**2)


OF_HEADS = {
    BoxHead: _count_box_head,
    MaskHead: _count_mask_head,
    MaskMLP: _count_mask_mlp,
    KeypointHead: _count_keypoint_head,
}


def _count_semantic_head(head, levels):
    """Each convolution of a level runs on the next finer level's cells; the classifier on the finest and the next."""
    cells = [rows * columns for rows, columns in levels]
    total = _count_convolutions([head.predictor], sum(cells[:2]))
    for level, convs in enumerate(head.levels):
        total += sum(_count_convolutions([conv], cells[level - number]) for number, conv in enumerate(convs))
    return total


def roi_align(implementation, height, width, rois=512, channels=256):
    """Time RoIAlign of `rois` boxes on a map of height x width cells, aligned, and its gradient.

    The UserError on an implementation that isn't there must come out as it is: no autograph.
    """
    features = tf.constant(random_features(height, width, channels))
    image = tf.zeros([rois], tf.int32)
    upstream = tf.ones([rois, ROI_BINS, ROI_BINS, channels])

    @tf.function(autograph=False)
    def forward(features, boxes):
        scale = 1 / ROI_STRIDE
        return ops.roi_align(features, boxes, image, scale, ROI_BINS, ROI_SAMPLES, True, implementation)

    @tf.function(autograph=False)
    def backward(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = forward(features, boxes)
        return tape.gradient(pooled, features, upstream)

    functions = {}
    for name, size in ROI_SIZES.items():
        boxes = tf.constant(random_boxes(rois, ROI_STRIDE * height, ROI_STRIDE * width, *size))
        functions[f"forward_{name}"] = lambda boxes=boxes: forward(features, boxes)
        functions[f"backward_{name}"] = lambda boxes=boxes: backward(features, boxes)
    return Task(timed(**functions))


if __name__ == "__main__":
    serve(roofline, roi_align)
