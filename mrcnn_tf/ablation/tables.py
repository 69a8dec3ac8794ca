"""The paper's ablation tables as data: what each row reports and by which settings it differs.

He, Gkioxari, Dollar and Girshick, "Mask R-CNN" (2017), https://arxiv.org/abs/1703.06870. Figures are in points.
"""

import dataclasses

from mrcnn_tf.datasets.shapes import Look

MASK = ("segm.AP", "segm.AP50", "segm.AP75")
BOX = ("bbox.AP", "bbox.AP50", "bbox.AP75")
# As in Figure 3, left: res5 on each RoI, then the mask's deconvolution.
C4 = (
    "model.features=C4",
    "model.box_head.pool_size=7",
    "model.box_head.fcs=0",
    "model.mask_head.pool_size=7",
    "model.mask_head.convs=0",
)
FEW_ROIS = ("model.rois={batch_per_image: 8, positive_fraction: 0.5}",)  # res5 on each makes them dear
C5 = ("model.features=C5",)
FPN = ("model.features=FPN",)
KEYPOINTS = ("model.keypoint_head={convs: 4, channels: 128}",)
NO_MASKS = ("model.mask_head=null",)
# Large and thick enough for a few hundred steps to learn. Where classes aren't the point, there is one.
ALL_CLASSES = Look(shapes=(1, 3), lengths=(0.35, 0.7), strokes=(0.2, 0.3))
ONE_CLASS = dataclasses.replace(ALL_CLASSES, kinds=("arrow",))


@dataclasses.dataclass(frozen=True)
class Row:
    """A row: its label, the paper's figures in points in the table's order (None: not given) and its own settings."""

    label: str
    paper: tuple[float | None, ...]
    settings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        title: number and subject.
        figures: names of what its columns hold, "segm.AP50" for the mask AP at an IoU of 0.5.
        settings: of all rows, `key.path=value`.
        rows: the first is what the others are compared with.
        size: side in pixels of the generated images; large strides need larger shapes.
        look: of the pictures.
        note: where this differs from the paper beyond the scale.
    """

    title: str
    figures: tuple[str, ...]
    settings: tuple[str, ...]
    rows: tuple[Row, ...]
    size: int
    look: Look
    note: str = ""


TABLES = {
    "2a": Table(
        "Table 2a: backbones",
        MASK,
        FEW_ROIS,
        (
            Row("ResNet-18-C4", (30.3, 51.2, 31.5), C4),
            Row("ResNet-34-C4", (32.7, 54.2, 34.3), ("model.backbone.depth=34", *C4)),
            Row("ResNet-18-FPN", (33.6, 55.2, 35.3), FPN),
            Row("ResNet-34-FPN", (35.4, 57.3, 37.5), ("model.backbone.depth=34", *FPN)),
        ),
        128,
        ALL_CLASSES,
        "ResNet-18 and 34 stand in the places of the paper's 50 and 101.",
    ),
    "2b": Table(
        "Table 2b: multinomial and independent masks, C4",
        MASK,
        (*C4, *FEW_ROIS),
        (
            Row("softmax", (24.8, 44.1, 25.1), ("model.mask_head.activation=softmax",)),
            Row("sigmoid", (30.3, 51.2, 31.5), ("model.mask_head.activation=sigmoid",)),
        ),
        128,
        ALL_CLASSES,
    ),
    "agnostic": Table(
        "Section 4.2: class-specific and class-agnostic masks, C4",
        MASK[:1],
        (*C4, *FEW_ROIS),
        (
            Row("class-agnostic", (29.7,), ("model.mask_head.class_agnostic=true",)),
            Row("class-specific", (30.3,), ("model.mask_head.class_agnostic=false",)),
        ),
        128,
        ALL_CLASSES,
    ),
    "2c": Table(
        "Table 2c: RoI layers, C4",
        MASK,
        (*C4, *FEW_ROIS),
        (
            Row("RoIPool max", (26.9, 48.8, 26.4), ("model.roi_layer={kind: pool, aggregate: max}",)),
            Row("RoIWarp max", (27.2, 49.2, 27.1), ("model.roi_layer={kind: warp, aggregate: max}",)),
            Row("RoIWarp ave", (27.1, 48.9, 27.1), ("model.roi_layer={kind: warp, aggregate: average}",)),
            Row("RoIAlign max", (30.2, 51.0, 31.8), ("model.roi_layer={kind: align, aggregate: max}",)),
            Row("RoIAlign ave", (30.3, 51.2, 31.5), ("model.roi_layer={kind: align, aggregate: average}",)),
        ),
        128,
        ONE_CLASS,
    ),
    "2d": Table(
        "Table 2d: RoI layers, C5 with stride 32",
        MASK + BOX,
        C5,
        (
            Row("RoIPool", (23.6, 46.5, 21.6, 28.2, 52.7, 26.9), ("model.roi_layer={kind: pool, aggregate: max}",)),
            Row("RoIAlign", (30.9, 51.8, 32.1, 34.0, 55.3, 36.4), ("model.roi_layer.kind=align",)),
        ),
        128,
        ONE_CLASS,
    ),
    "2e": Table(
        "Table 2e: mask branches, FPN",
        MASK,
        FPN,
        (
            Row("MLP 2 fc", (31.5, 53.7, 32.8), ("model.mask_head={fcs: 2, channels: 1024}",)),
            Row("MLP 3 fc", (31.5, 54.0, 32.6), ("model.mask_head={fcs: 3, channels: 1024}",)),
            Row("FCN", (33.6, 55.2, 35.3)),
        ),
        128,
        ONE_CLASS,
    ),
    "5": Table(
        "Table 5: box, mask and keypoints",
        ("bbox.AP", "segm.AP", "keypoints.AP"),
        FPN,
        (
            Row("Faster R-CNN", (52.5, None, None), NO_MASKS),
            Row("mask-only", (53.6, 45.8, None)),
            Row("keypoint-only", (50.7, None, 64.2), (*NO_MASKS, *KEYPOINTS)),
            Row("keypoint & mask", (52.0, 45.1, 64.7), KEYPOINTS),
        ),
        128,
        ALL_CLASSES,
        "The paper's figures are of persons; here they are of all shapes, and one class has no keypoints.",
    ),
    "6": Table(
        "Table 6: RoI layers for keypoints, FPN",
        ("keypoints.AP", "keypoints.AP50", "keypoints.AP75"),
        (*FPN, *NO_MASKS, *KEYPOINTS),
        (
            Row("RoIPool", (59.8, 86.2, 66.7), ("model.roi_layer={kind: pool, aggregate: max}",)),
            Row("RoIAlign", (64.2, 86.6, 69.7), ("model.roi_layer.kind=align",)),
        ),
        128,
        ONE_CLASS,
        "The paper's figures are of persons.",
    ),
}
