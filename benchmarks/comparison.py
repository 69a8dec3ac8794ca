"""Run a comparison with the peers, and what follows from its times: factors, prices, and the processor's limit."""

import dataclasses
import itertools

from benchmarks import cases
from benchmarks.cases import FAMILY, MASK_BRANCH, PACKAGE, PRECISIONS, Settings
from benchmarks.processes import measure
from mrcnn_tf.cli.benchmark_processes import Result, describe_machine, library_versions
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config

LIBRARIES = ("mrcnn-tf", "tensorflow", "keras", "numpy", "torch", "torchvision", "tf-models-official", "detectron2")
SLOW = ("startup", "evaluation")  # the Model Garden takes minutes to its first detection, pycocotools to its figures
SLOW_REPEATS = 3  # at most
# In each precision; which there are the roofline's process says.
OF_MODELS = {"inference", "family", "breakdown", "panoptic", "training", "serving"}
# What each time is of, in the order of the report.
TITLES = {
    ("roi_align", "forward_level"): "RoIAlign, boxes of the level",
    ("roi_align", "forward_spread"): "RoIAlign, boxes of all sizes",
    ("roi_align", "backward_level"): "Gradient, boxes of the level",
    ("roi_align", "backward_spread"): "Gradient, boxes of all sizes",
    ("inference", "detect"): "Image to boxes, 28x28 masks",
    ("inference", "detect_full"): "Image to boxes, full-size masks",
    ("family", "detect"): "image to {outputs}",
    ("family", "detect_full"): "image to boxes, full-size masks",
    ("panoptic", "detect"): "An image, without a semantic head",
    ("panoptic", "detect_semantic"): "With a semantic head",
    ("panoptic", "detect_panoptic"): "With it, and each pixel's segment",
    ("panoptic", "map"): "Of that, each pixel's class",
    ("panoptic", "fusion"): "100 instances and stuff fused",
    ("training", "step"): "Training step (RoIs with masks)",
    ("startup", "start_to_detection"): "Process start to detection",
    ("startup", "mrcnn_tf"): "First use of mrcnn_tf.MaskRCNN, after Keras",
    ("postprocessing", "paste"): "100 masks to full size",
    ("postprocessing", "rle"): "100 masks to COCO's RLE",
    ("pipeline", "image"): "Input pipeline, each image",
    ("replicas", "step"): "Training step of two images",
    ("checkpoints", "steps"): "Training steps",
    ("checkpoints", "steps_saving"): "The same, and a checkpoint",
    ("serving", "keras"): "An image by the Keras model, in one process with the export",
    ("serving", "batch_1"): "A JPEG file by the export",
    ("serving", "batch_8"): "A batch of 8",
    ("evaluation", "read"): "COCO json of 5,000 images read",
    ("evaluation", "evaluate"): "Box and mask AP of these",
}
STAGES = {
    "resize": "resize",
    "normalize": "normalise",
    "backbone": "backbone",
    "fpn": "FPN",
    "rpn_head": "RPN's convolutions",
    "proposals": "proposals",
    "box_head_features": "RoI features, boxes",
    "box_head": "box head, NMS",
    "mask_head_features": "RoI features, masks",
    "mask_head": "mask head",
    "keypoint_head_features": "RoI features, keypoints",
    "keypoint_head": "keypoint head",
    "semantic_head": "semantic head",
}  # of other parts: their names


def run_comparison(settings, only=(), report=lambda sentence: None):
    """Measure this package and the installed peers.

    Args:
        settings: `cases.Settings`.
        only: names of `cases.MEASUREMENTS`; empty: all of them.
        report: called with a line before each process is started.

    Returns:
        `Comparison`. What couldn't be measured is named in it and doesn't stop the rest.

    Raises:
        UserError: an unknown measurement, or a config that can't be used.
    """
    for name in only:
        if name not in cases.MEASUREMENTS:
            raise UserError(f"There is no measurement '{name}': choose of {', '.join(cases.MEASUREMENTS)}.")
    load_config(settings.config, settings.overrides)  # a mistake in it is to be named before anything is started
    wanted = [name for name in cases.MEASUREMENTS if not only or name in only]
    peers, missing = cases.installed_peers(wanted)
    comparison = Comparison(settings, describe_machine(), library_versions(LIBRARIES))
    comparison.left_out = [f"{peer.name} isn't installed ({peer.remedy})." for peer in missing]
    if OF_MODELS & set(wanted) and "roofline" not in wanted:
        wanted.insert(0, "roofline")
    precisions = PRECISIONS[:1]
    for position, name in enumerate(wanted, 1):
        repeats = min(settings.repeats, SLOW_REPEATS) if name in SLOW else settings.repeats
        prefix = f"{position}/{len(wanted)} "
        planned = cases.make_cases(name, settings, precisions, peers)
        for _, turn in itertools.groupby(planned, lambda case: case.turn):
            results, left_out, failed = measure(list(turn), repeats, lambda title, p=prefix: report(p + title))
            comparison.results += results
            comparison.left_out += left_out
            comparison.failed += failed
        if name == "roofline" and any(result.facts["native_bfloat16"] for result in comparison.of("roofline")):
            precisions = PRECISIONS
    return comparison


@dataclasses.dataclass
class Comparison:
    """The results of `ComparedCase`s. `left_out` and `failed` are sentences on what wasn't and couldn't be measured."""

    settings: Settings
    machine: dict
    versions: dict
    results: list[Result] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)

    def of(self, measurement, ours=True):
        """The results of a measurement: ours, or the peers'."""
        return [r for r in self.results if r.case.measurement == measurement and (r.case.system == PACKAGE) == ours]

    def blocks(self):
        """(title, name of the time, results with ours first) of everything that was timed."""
        blocks = []
        for (measurement, name), title in TITLES.items():
            results = [r for r in [*self.of(measurement), *self.of(measurement, ours=False)] if name in r.times]
            for model in dict.fromkeys(result.case.model for result in results):
                heading = f"{model}, {title.format(outputs=FAMILY[model].outputs)}" if model else title
                blocks.append((heading, name, [result for result in results if result.case.model == model]))
        return blocks

    def factor(self, peer, name, precision):
        """A peer's median over our fastest variant's in `precision`: above 1, ours is faster. None without one.

        A peer in bfloat16 is held against ours in bfloat16 alone.
        """
        case = peer.case
        ours = [
            result.times[name].median
            for result in self.of(case.measurement)
            if (result.case.model, result.case.precision) == (case.model, precision) and name in result.times
        ]
        if case.system == PACKAGE or not ours or (case.precision, precision) == ("bfloat16", "float32"):
            return None
        return peer.times[name].median / min(ours)

    def mask_branch(self):
        """By precision: the share of our Faster R-CNN's time that the mask branch adds to it, pasting left out."""
        medians = {(r.case.model, r.case.precision): r.times["detect"].median for r in self.of("family")}
        shares = {}
        for precision in PRECISIONS:
            boxes, masks = (medians.get((model, precision)) for model in MASK_BRANCH)
            if boxes and masks:
                shares[precision] = masks / boxes - 1
        return shares

    def panoptic_price(self):
        """By precision: the share of Mask R-CNN's time that the semantic head, the map and the fusion add to it."""
        return {
            result.case.precision: result.times["detect_panoptic"].median / result.times["detect"].median - 1
            for result in self.of("panoptic")
        }

    def pipeline_rates(self):
        """Images per second of the input pipeline; empty where it wasn't measured."""
        return [1 / result.times["image"].median for result in self.of("pipeline")]

    def replicas_price(self):
        """The share by which a step on two logical devices takes longer than on one; None if it wasn't measured."""
        medians = [result.times["step"].median for result in self.of("replicas")]
        return medians[1] / medians[0] - 1 if len(medians) == 2 else None

    def checkpoint_price(self):
        """The share of the training time that checkpoints take, at the config's interval; None if not measured."""
        for result in self.of("checkpoints"):
            steps, saving = (result.times[name].median for name in ("steps", "steps_saving"))
            return (saving - steps) / (steps / result.facts["steps"] * result.facts["every"])
        return None

    def export_prices(self):
        """By label: an image's time in the export over the Keras model's, and the bytes of an answer."""
        return {
            result.case.label: {
                "price": result.times["batch_1"].median / result.times["keras"].median,
                "grpc_bytes": result.facts["grpc_bytes"],
                "rest_bytes": result.facts["rest_bytes"],
            }
            for result in self.of("serving")
        }

    def evaluation_speedup(self):
        """How many times as fast hotcoco gives COCO's figures as pycocotools; None if one wasn't measured."""
        medians = {result.case.variant: result.times["evaluate"].median for result in self.of("evaluation")}
        return medians["pycocotools"] / medians["hotcoco"] if len(medians) == 2 else None

    def rates(self):
        """Operations per second by name of the roofline's times, such as `product_float32`."""
        return {
            name: result.facts["operations"][name] / times.median
            for result in self.of("roofline")
            for name, times in result.times.items()
        }

    def image_operations(self):
        """Operations of a detection by part of the model; empty without a roofline."""
        return next((result.facts["image_operations"] for result in self.of("roofline")), {})

    def rooflines(self):
        """By precision: `operations` of an image, `bound` in seconds at the matrix product's rate, its `fraction`."""
        rates, operations, rooflines = self.rates(), sum(self.image_operations().values()), {}
        for result in self.of("inference"):
            if rate := rates.get(f"product_{result.case.precision}"):
                bound = operations / rate
                fraction = bound / result.times["detect"].median
                rooflines[result.case.precision] = {"operations": operations, "bound": bound, "fraction": fraction}
        return rooflines

    def breakdowns(self):
        """By precision: for each stage of detection `seconds` and, where they are counted, `operations`.

        "the rest" is what a detection takes beyond the sum of the stages, which are timed one by one.
        """
        operations, breakdowns = self.image_operations(), {}
        for result in self.of("breakdown"):
            medians = {name: times.median for name, times in result.times.items()}
            whole = medians.pop("whole")
            stages = {
                STAGES.get(name, name.replace("_", " ")): {
                    "seconds": seconds - medians.get(f"{name}_features", 0.0),  # what a head contains
                    "operations": operations.get(name),
                }
                for name, seconds in medians.items()
            }
            rest = whole - sum(stage["seconds"] for stage in stages.values())
            stages["the rest"] = {"seconds": rest, "operations": None}
            breakdowns[result.case.precision] = stages
        return breakdowns

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        compared = [
            {
                "title": title,
                "peer": f"{result.case.system} {result.case.label}",
                "seconds": result.times[name].median,
                "over_ours": {precision: self.factor(result, name, precision) for precision in PRECISIONS},
            }
            for title, name, results in self.blocks()
            for result in results
            if result.case.system != PACKAGE
        ]
        derived = {
            "operations_per_second": self.rates(),
            "roofline": self.rooflines(),
            "breakdown": self.breakdowns(),
            "mask_branch": self.mask_branch(),
            "panoptic_price": self.panoptic_price(),
            "images_per_second": self.pipeline_rates(),
            "replicas_price": self.replicas_price(),
            "checkpoint_price": self.checkpoint_price(),
            "export_prices": self.export_prices(),
            "evaluation_speedup": self.evaluation_speedup(),
        }
        return {"compared": compared} | derived | dataclasses.asdict(self)
