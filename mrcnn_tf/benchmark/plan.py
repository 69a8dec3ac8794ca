"""Which processes a measurement consists of: ours in each of its variants, and the installed peers'."""

import dataclasses
import importlib.util

from mrcnn_tf.benchmark import inputs

OURS = "mrcnn_tf"
IMPLEMENTATIONS = ("custom", "gather")  # of RoIAlign
BACKENDS = ("pycocotools", "hotcoco")  # of COCO's figures
MEASUREMENTS = (
    "roofline",
    "roi_align",
    "inference",
    "family",
    "breakdown",
    "panoptic",
    "training",
    "startup",
    "postprocessing",
    "pipeline",
    "replicas",
    "checkpoints",
    "serving",
    "evaluation",
)  # fmt: skip
MODULES = "mrcnn_tf.benchmark"
REPLICAS = (1, 2)  # logical devices that a step is divided among


@dataclasses.dataclass(frozen=True)
class Peer:
    """What a user might take instead: its name, the package to look for, how to get it, and what is compared."""

    name: str
    package: str
    remedy: str
    module: str
    measurements: tuple[str, ...]


PEERS = (
    Peer(
        "torchvision",
        "torchvision",
        "pip install torchvision",
        f"{MODULES}.peers.torchvision",
        ("roi_align", "inference", "family", "training", "startup", "postprocessing", "pipeline"),
    ),
    Peer(
        "Model Garden",
        "official",
        "pip install tf-models-official",
        f"{MODULES}.peers.model_garden",
        ("inference", "startup"),
    ),
    # No registry has a package of it for today's Python.
    Peer("detectron2", "detectron2", "see its installation page", f"{MODULES}.peers.detectron2", ("family",)),
)


@dataclasses.dataclass(frozen=True)
class Member:
    """A detector of the measurement `family`: our config, the `Peer` that has the same, and what a detection gives."""

    config: str
    peer: str
    gives: str


FAMILY = {
    "Faster R50-FPN": Member("torchvision_fasterrcnn_resnet50_fpn", "torchvision", "boxes"),
    "Mask R50-FPN": Member("torchvision_maskrcnn_resnet50_fpn", "torchvision", "boxes, 28x28 masks"),
    "Keypoint R50-FPN": Member("torchvision_keypointrcnn_resnet50_fpn", "torchvision", "boxes, keypoints"),
    "Mask R50-C4": Member("detectron2_mask_rcnn_R_50_C4", "detectron2", "boxes, 14x14 masks"),
}


MASK_BRANCH = ("Faster R50-FPN", "Mask R50-FPN")  # without and with it


@dataclasses.dataclass
class Settings:
    """What is measured: a config by name or path with overrides, the image in pixels, and runs after the first."""

    config: str
    overrides: list[str]
    height: int
    width: int
    repeats: int


@dataclasses.dataclass(frozen=True)
class Contender:
    """One process of a measurement: whose, in which precision and variant, and what it runs.

    Only those of one `subject` are compared: a name in `FAMILY`, None in the other measurements.
    """

    measurement: str
    who: str
    precision: str
    variant: str | None
    module: str
    arguments: dict
    subject: str | None = None

    @property
    def label(self):
        """Such as "mrcnn_tf custom float32"."""
        return " ".join(filter(None, (self.who, self.subject, self.variant, self.precision)))

    @property
    def turn(self):
        """What those have in common that take turns: the family's models wouldn't fit into memory all at once.

        Faster and Mask R-CNN do, so that what the mask branch adds is a difference within one round.
        """
        subject = " and ".join(MASK_BRANCH) if self.subject in MASK_BRANCH else self.subject
        return (subject, self.precision) if self.subject else None


def installed_peers(measurements):
    """The `PEERS` of some measurements whose package is found (it isn't imported), and the others of them."""
    wanted = [peer for peer in PEERS if set(peer.measurements) & set(measurements)]
    found = [peer for peer in wanted if importlib.util.find_spec(peer.package)]
    return found, [peer for peer in wanted if peer not in found]


def contenders(measurement, settings, precisions, peers):
    """The `Contender`s of one of `MEASUREMENTS`, ours first, those of one turn side by side.

    Args:
        settings: `Settings`.
        precisions: "float32" and, where it is native, "bfloat16".
        peers: those of `PEERS` to compare with.
    """
    if measurement == "family":
        return _family(settings, precisions, peers)
    size = {"height": settings.height, "width": settings.width}
    model = {"config": settings.config, "overrides": settings.overrides, **size}
    cells = {side: pixels // inputs.ROI_STRIDE for side, pixels in size.items()}
    single = ("float32",)
    trained = {"7 RoIs": {**size, "positives": False}, "128 RoIs": {**size, "positives": True}}
    # Arguments of ours in each variant, those of the peers, and the precisions.
    ours, theirs, used = {
        "roofline": ({None: {}}, {}, single),
        "roi_align": ({name: {"implementation": name, **cells} for name in IMPLEMENTATIONS}, {None: cells}, single),
        "inference": ({None: model}, {None: size}, precisions),
        "breakdown": ({None: model}, {}, precisions),
        "panoptic": ({None: model}, {}, precisions),
        "training": ({None: model}, trained, precisions),
        "startup": ({None: model}, {None: size}, single),
        "postprocessing": ({None: size}, {None: size}, single),
        "pipeline": ({None: {}}, {None: {}}, single),
        "replicas": ({f"{number} x CPU": model | {"replicas": number} for number in REPLICAS}, {}, single),
        "checkpoints": ({None: model}, {}, single),
        "serving": ({None: model, "custom ops": model | {"custom_ops": True}}, {}, precisions),
        "evaluation": ({name: {"backend": name} for name in BACKENDS}, {}, single),
    }[measurement]
    found, rivals = [], [peer for peer in peers if measurement in peer.measurements]
    rivals = [(peer.name, peer.module, theirs, {"task": measurement}) for peer in rivals]
    for who, module, variants, extra in [(OURS, f"{MODULES}.{measurement}", ours, {}), *rivals]:
        for precision in used:
            choice = extra | ({"precision": precision} if used is precisions else {})
            found += [
                Contender(measurement, who, precision, variant, module, arguments | choice)
                for variant, arguments in variants.items()
            ]
    return found


def _family(settings, precisions, peers):
    """The config of the settings has no say in it, and neither have its overrides, which the peers couldn't follow."""
    size = {"height": settings.height, "width": settings.width}
    overrides, found = [f"model.pixel_std={[inputs.PIXEL_STD] * 3}"], []
    for subject, member in FAMILY.items():
        runs = [(OURS, f"{MODULES}.inference", {"config": member.config, "overrides": overrides})]
        task = {"task": "family", "model": subject}
        runs += [(peer.name, peer.module, task) for peer in peers if peer.name == member.peer]
        for precision in precisions:
            choice = size | {"precision": precision}
            found += [
                Contender("family", who, precision, None, module, arguments | choice, subject)
                for who, module, arguments in runs
            ]
    turns = list(dict.fromkeys(contender.turn for contender in found))
    return sorted(found, key=lambda contender: turns.index(contender.turn))
