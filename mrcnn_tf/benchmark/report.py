"""What was measured, and what follows from it: who is how much faster, and how near to the processor's limit."""

import dataclasses

from mrcnn_tf.benchmark.plan import FAMILY, MASK_BRANCH, OURS, Settings

# What each time is of, in the order of the report.
WHAT = {
    ("roi_align", "forward_level"): "RoIAlign, boxes of the level",
    ("roi_align", "forward_spread"): "RoIAlign, boxes of all sizes",
    ("roi_align", "backward_level"): "Gradient, boxes of the level",
    ("roi_align", "backward_spread"): "Gradient, boxes of all sizes",
    ("inference", "detect"): "Image to boxes, 28x28 masks",
    ("inference", "detect_full"): "Image to boxes, full-size masks",
    ("family", "detect"): "image to {gives}",
    ("family", "detect_full"): "image to boxes, full-size masks",
    ("panoptic", "detect"): "An image, without a semantic head",
    ("panoptic", "detect_semantic"): "With a semantic head",
    ("panoptic", "detect_panoptic"): "With it, and each pixel's segment",
    ("panoptic", "map"): "Of that, each pixel's class",
    ("panoptic", "fusion"): "100 instances and stuff fused",
    ("training", "step"): "Training step (RoIs with masks)",
    ("startup", "start_to_detection"): "Process start to detection",
    ("startup", "mrcnn_tf"): "import mrcnn_tf, after Keras",
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
# The parts of detection that are timed together with another one: the rest of the first is what is reported.
CONTAINS = {"rpn": "rpn_head"}
PARTS = {
    "resize": "resize",
    "normalize": "normalise",
    "backbone": "backbone",
    "fpn": "FPN",
    "rpn_head": "RPN's convolutions",
    "rpn": "proposals",
    "box_features": "RoI features, boxes",
    "box_head": "box head",
    "detections": "detections, NMS",
    "mask_features": "RoI features, masks",
    "mask_head": "mask head",
    "keypoint_features": "RoI features, keypoints",
    "keypoint_head": "keypoint head",
    "keypoints": "keypoints from heatmaps",
    "semantic_head": "semantic head",
}
# Parts whose operations are counted -> the layer that does them.
HEADS = ("box_head", "mask_head", "keypoint_head", "semantic_head")
COUNTED = {name: name for name in ("backbone", "fpn", *HEADS)} | {"rpn_head": "rpn"}


@dataclasses.dataclass
class Times:
    """Seconds: of the first run, which compiles, and of the others."""

    first: float
    median: float
    fastest: float
    runs: list[float]


@dataclasses.dataclass
class Entry:
    """What one process measured: times by name, the peak of its memory in bytes, and facts (see its module).

    `subject`: as in `plan.Contender`.
    """

    measurement: str
    who: str
    precision: str
    variant: str | None
    times: dict[str, Times]
    peak_memory: int
    facts: dict
    subject: str | None = None

    @property
    def label(self):
        """Such as "custom float32"; without the name of whose it is."""
        return " ".join(filter(None, (self.variant, self.precision)))


@dataclasses.dataclass
class Report:
    """A run of the benchmark. `left_out` and `failed` are sentences on what wasn't and couldn't be measured."""

    settings: Settings
    machine: dict
    versions: dict
    entries: list[Entry] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)

    def of(self, measurement, ours=True):
        """The entries of a measurement: ours, or the peers'."""
        return [e for e in self.entries if e.measurement == measurement and (e.who == OURS) == ours]

    def blocks(self):
        """(what, name of the time, entries with ours first) of everything that was timed."""
        found = []
        for (measurement, name), what in WHAT.items():
            entries = [e for e in [*self.of(measurement), *self.of(measurement, ours=False)] if name in e.times]
            for subject in dict.fromkeys(entry.subject for entry in entries):
                title = f"{subject}, {what.format(gives=FAMILY[subject].gives)}" if subject else what
                found.append((title, name, [entry for entry in entries if entry.subject == subject]))
        return found

    def factor(self, peer, name, precision):
        """A peer's median over our fastest variant's in `precision`: above 1, ours is faster. None without one.

        A peer in bfloat16 is held against ours in bfloat16 alone.
        """
        entries = [e for e in self.of(peer.measurement) if (e.subject, e.precision) == (peer.subject, precision)]
        ours = [entry.times[name].median for entry in entries if name in entry.times]
        if peer.who == OURS or not ours or (peer.precision, precision) == ("bfloat16", "float32"):
            return None
        return peer.times[name].median / min(ours)

    def mask_branch(self):
        """By precision: the share of our Faster R-CNN's time that the mask branch adds to it, pasting left out."""
        medians = {(e.subject, e.precision): e.times["detect"].median for e in self.of("family")}
        found = {}
        for precision in ("float32", "bfloat16"):
            boxes, masks = (medians.get((subject, precision)) for subject in MASK_BRANCH)
            if boxes and masks:
                found[precision] = masks / boxes - 1
        return found

    def panoptic_price(self):
        """By precision: the share of Mask R-CNN's time that the semantic head, the map and the fusion add to it."""
        medians = {e.precision: {name: times.median for name, times in e.times.items()} for e in self.of("panoptic")}
        return {precision: found["detect_panoptic"] / found["detect"] - 1 for precision, found in medians.items()}

    def pipeline_rates(self):
        """Images per second of the input pipeline; empty where it wasn't measured."""
        return [1 / entry.times["image"].median for entry in self.of("pipeline")]

    def replicas_price(self):
        """The share by which a step on two logical devices takes longer than on one; None if it wasn't measured."""
        medians = [entry.times["step"].median for entry in self.of("replicas")]
        return medians[1] / medians[0] - 1 if len(medians) == 2 else None

    def checkpoint_price(self):
        """The share of the training time that checkpoints take, at the config's interval; None if not measured."""
        for entry in self.of("checkpoints"):
            steps, saving = (entry.times[name].median for name in ("steps", "steps_saving"))
            return (saving - steps) / (steps / entry.facts["steps"] * entry.facts["every"])
        return None

    def export_prices(self):
        """By label: an image's time in the export over the Keras model's, and the bytes of an answer."""
        return {
            entry.label: {
                "price": entry.times["batch_1"].median / entry.times["keras"].median,
                "grpc_bytes": entry.facts["grpc_bytes"],
                "rest_bytes": entry.facts["rest_bytes"],
            }
            for entry in self.of("serving")
        }

    def evaluation_speedup(self):
        """How many times as fast hotcoco gives COCO's figures as pycocotools; None if one wasn't measured."""
        medians = {entry.variant: entry.times["evaluate"].median for entry in self.of("evaluation")}
        return medians["pycocotools"] / medians["hotcoco"] if len(medians) == 2 else None

    def rates(self):
        """Operations per second by name of the roofline's times, such as `product_float32`."""
        return {
            name: entry.facts["operations"][name] / times.median
            for entry in self.of("roofline")
            for name, times in entry.times.items()
        }

    def rooflines(self):
        """By precision: `operations` of an image, `bound` in seconds at the matrix product's rate, its `fraction`."""
        rates, found = self.rates(), {}
        for entry in self.of("inference"):
            rate = rates.get(f"product_{entry.precision}")
            if rate:
                operations = sum(entry.facts["operations"].values())
                bound = operations / rate
                fraction = bound / entry.times["detect"].median
                found[entry.precision] = {"operations": operations, "bound": bound, "fraction": fraction}
        return found

    def breakdowns(self):
        """By precision: for each part of detection `seconds` and, where they are counted, `operations`.

        "the rest" is what a detection takes beyond the sum of the parts, which are timed one by one.
        """
        counts = {entry.precision: entry.facts["operations"] for entry in self.of("inference")}
        found = {}
        for entry in self.of("breakdown"):
            times = {name: times.median for name, times in entry.times.items()}
            operations = counts.get(entry.precision, {})
            parts = {
                title: {
                    "seconds": times[name] - times.get(CONTAINS.get(name), 0.0),
                    "operations": operations.get(COUNTED.get(name)),
                }
                for name, title in PARTS.items()
                if name in times
            }
            rest = times["whole"] - sum(part["seconds"] for part in parts.values())
            parts["the rest"] = {"seconds": rest, "operations": None}
            found[entry.precision] = parts
        return found

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        compared = [
            {
                "what": what,
                "peer": f"{entry.who} {entry.label}",
                "seconds": entry.times[name].median,
                "over_ours": {precision: self.factor(entry, name, precision) for precision in ("float32", "bfloat16")},
            }
            for what, name, entries in self.blocks()
            for entry in entries
            if entry.who != OURS
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
