"""COCO's figures at the end of each epoch of `model.fit`."""

import keras

from mrcnn_tf.evaluation.protocol import check_backend
from mrcnn_tf.evaluation.runner import evaluate

KINDS = ("bbox", "segm", "keypoints")
IN_LOGS = ("AP", "AP50", "AP75")  # more would bury the losses in the progress bar
HEADLINES = (*(f"{kind}_{name}" for kind in KINDS for name in ("AP", "AP50")), "PQ", "mIoU")


def main_figure(model, data_config):
    """The name in the logs of the figure that says how good a model is; higher is better.

    Panoptic quality where the model has segments and `data_config` their ground truth, else mean IoU of a model without
    instances or of data without, else the AP of masks or boxes.

    Args:
        model: the `ModelConfig`.
        data_config: the `DataConfig` that it is evaluated on.
    """
    if model.semantic_head and data_config.semantic is not False:
        if data_config.panoptic and model.mask_head:
            return "val_PQ"
        if not (model.box_head and (data_config.annotations or data_config.panoptic)):
            return "val_mIoU"
    return "val_segm_AP" if model.mask_head else "val_bbox_AP"


class CocoAP(keras.callbacks.Callback):
    """Evaluates after an epoch and adds the figures to its logs, where other callbacks find them.

    The names are `val_bbox_AP`, `val_bbox_AP50`, `val_bbox_AP75` and the same with `segm` and `keypoints`; with a
    semantic head `val_PQ`, `val_PQ_things`, `val_PQ_stuff` and `val_mIoU`. All figures of the last evaluation are in
    `results`. Figures without ground truth of their kind are absent. It saves nothing itself.

    Keras calls callbacks in order, so this one must come before those that read its figures:

        callbacks=[CocoAP(cfg.data.val), keras.callbacks.ModelCheckpoint("best.keras", monitor="val_segm_AP",
                   mode="max", save_best_only=True)]

    In epochs without evaluation the names are absent, and a ModelCheckpoint or EarlyStopping that monitors them warns
    and does nothing; EarlyStopping's patience then counts evaluations.
    """

    def __init__(self, data_config, every_epochs=1, prefix="val_", verbose=1):
        """
        Args:
            data_config: the `DataConfig` to evaluate on.
            every_epochs: evaluate after each n-th epoch, and after the last.
            prefix: goes before each name.
            verbose: 1 shows a progress bar and prints a line, 0 is silent.

        Raises:
            UserError: its `coco_backend` isn't installed, which would otherwise show after an epoch.
        """
        super().__init__()
        check_backend(data_config.coco_backend)
        self.data_config = data_config
        self.every_epochs = every_epochs
        self.prefix = prefix
        self.verbose = verbose
        self.results = None  # the CocoResults of the last evaluation

    def on_epoch_end(self, epoch, logs=None):
        number = epoch + 1
        if number % self.every_epochs and number != self.params.get("epochs"):
            return
        self.results, _ = evaluate(self.model, self.data_config, progress=bool(self.verbose))
        figures = {f"{self.prefix}{name}": value for name, value in _figures(self.results) if value is not None}
        if logs is not None:
            logs.update(figures)
        if self.verbose:
            headlines = [f"{self.prefix}{name}" for name in HEADLINES]
            shown = [f"{name}: {figures[name]:.3f}" for name in headlines if name in figures]
            # Keras' progress bar leaves the cursor in its line.
            print(f"\nEpoch {number}: {', '.join(shown) or 'no ground truth to evaluate on'}", flush=True)


def _figures(results):
    """(name, value) of what goes into the logs."""
    for kind in KINDS:
        known = getattr(results, kind) or {}
        yield from ((f"{kind}_{name}", known[name]) for name in IN_LOGS if name in known)
    if results.panoptic:
        for name in ("all", "things", "stuff"):
            yield "PQ" if name == "all" else f"PQ_{name}", getattr(results.panoptic, name)["PQ"]
    if results.semantic:
        yield "mIoU", results.semantic.mIoU
