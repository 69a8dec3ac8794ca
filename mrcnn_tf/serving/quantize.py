"""Bytes instead of floats in the convolutions of a TFLite model."""

from mrcnn_tf.common.errors import UserError

# The network proper, by the scopes of its operations. What turns its outputs into boxes and masks stays float32: one
# scale for coordinates and scores, or for small and large boxes, would leave few of either.
TRUNK = r"(^|/|;)(backbone|fpn)(_\d+)?/"
HEADS = r"(^|/|;)(res5|box_head|mask_head|keypoint_head|head|semantic_head(_\d+)?/p\d_conv\d)(_\d+)?/"
# The layer that sees the image, of whose dark parts bytes would leave too little, and the layers that mixed precision
# keeps in float32 too: boxes are ranked by the scores, and moved by the deltas.
FLOAT = r"(stem|class_logits|box_deltas|objectness_logits|anchor_deltas)(_\d+)?/"
PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_2D_TRANSPOSE")
# Between the products, so that bytes needn't become floats on the way from one to the next. Not group norm's, whose
# statistics are sums of thousands of squares.
TRUNK_WITHOUT_NORMS = rf"^(?!.*/norm(_\d+)?/).*{TRUNK}"
BETWEEN = ("ADD", "MUL", "PAD", "MAX_POOL_2D", "RELU", "RESIZE_NEAREST_NEIGHBOR", "RESHAPE")
SUBSAMPLED = r"(^|/|;)fpn(_\d+)?/strided_slice"  # P6; elsewhere slices are of sizes
RECIPE = [
    *((rf"^(?!.*{FLOAT}).*({TRUNK}|{HEADS})", name) for name in PRODUCTS),
    *((TRUNK_WITHOUT_NORMS, name) for name in BETWEEN),
    (SUBSAMPLED, "STRIDED_SLICE"),
]


def quantized(model, kind, samples=None):
    """The bytes of a float32 .tflite with its network quantised.

    Args:
        model: bytes.
        kind: "dynamic" (weights only, inputs as they come) or "int8".
        samples: for int8, inputs by name.

    Raises:
        UserError: ai-edge-quantizer isn't installed.
    """
    try:
        from ai_edge_quantizer import calibrator, quantizer
        from ai_edge_quantizer.qtyping import TFLOperationName
    except ImportError as error:
        raise UserError("Quantising needs ai-edge-quantizer: pip install 'mrcnn-tf[edge]'.") from error
    work = quantizer.Quantizer(model)
    if kind == "dynamic":
        for scope, name in RECIPE[: len(PRODUCTS)]:
            work.add_dynamic_config(scope, TFLOperationName(name), num_bits=8)
        return bytes(work.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)
    for scope, name in RECIPE:
        work.add_static_config(scope, TFLOperationName(name), activation_num_bits=8, weight_num_bits=8)
    # The other mode reads all tensors after a run, those inside a loop too, which are gone by then.
    mode = calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED
    result = work.calibrate({"serving_default": samples}, mode=mode)
    return bytes(work.quantize(result, enable_progress_bar=False, enable_progress_report=False).quantized_model)
