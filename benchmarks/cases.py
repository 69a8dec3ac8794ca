"""Which processes a comparison consists of: ours in each variant, and those of the installed peers."""

import dataclasses
import importlib.util

from benchmarks.inputs import PIXEL_STD, ROI_STRIDE
from mrcnn_tf.cli.benchmark_processes import Case

PACKAGE = "mrcnn_tf"
PRECISIONS = ("float32", "bfloat16")
IMPLEMENTATIONS = ("custom", "gather")  # of RoIAlign
BACKENDS = ("pycocotools", "hotcoco")  # of COCO's figures
REPLICAS = (1, 2)  # logical devices that a step is divided among
# Where our measurements are.
MODULES = {
    "roofline": "benchmarks.roofline",
    "roi_align": "benchmarks.roofline",
    "inference": "mrcnn_tf.cli.benchmark_measurements",
    "family": "mrcnn_tf.cli.benchmark_measurements",
    "breakdown": "benchmarks.detection_cost",
    "panoptic": "benchmarks.detection_cost",
    "training": "mrcnn_tf.cli.benchmark_measurements",
    "startup": "mrcnn_tf.cli.benchmark_measurements",
    "postprocessing": "benchmarks.detection_cost",
    "pipeline": "benchmarks.training_cost",
    "replicas": "benchmarks.training_cost",
    "checkpoints": "benchmarks.training_cost",
    "serving": "benchmarks.detection_cost",
    "evaluation": "benchmarks.training_cost",
}
MEASUREMENTS = tuple(MODULES)


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
        "benchmarks.peers.torchvision",
        ("roi_align", "inference", "family", "training", "startup", "postprocessing", "pipeline"),
    ),
    Peer(
        "Model Garden",
        "official",
        "pip install tf-models-official",
        "benchmarks.peers.model_garden",
        ("inference", "startup"),
    ),
    # No registry has a package of it for today's Python.
    Peer("detectron2", "detectron2", "see its installation page", "benchmarks.peers.detectron2", ("family",)),
)


@dataclasses.dataclass(frozen=True)
class FamilyModel:
    """A detector of the measurement `family`: our config, the `Peer` that has the same, and what a detection gives."""

    config: str
    peer: str
    outputs: str


FAMILY = {
    "Faster R50-FPN": FamilyModel("torchvision_fasterrcnn_resnet50_fpn", "torchvision", "boxes"),
    "Mask R50-FPN": FamilyModel("torchvision_maskrcnn_resnet50_fpn", "torchvision", "boxes, 28x28 masks"),
    "Keypoint R50-FPN": FamilyModel("torchvision_keypointrcnn_resnet50_fpn", "torchvision", "boxes, keypoints"),
    "Mask R50-C4": FamilyModel("detectron2_mask_rcnn_R_50_C4", "detectron2", "boxes, 14x14 masks"),
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
class ComparedCase(Case):
    """One process of a comparison. Only those of one `model` are compared.

    Attributes:
        system: `PACKAGE` or a peer's name.
        precision: "float32" or "bfloat16".
        variant: what else sets it apart, or None.
        model: a name in `FAMILY`, None in the other measurements.
    """

    system: str = PACKAGE
    precision: str = "float32"
    variant: str | None = None
    model: str | None = None

    @property
    def title(self):
        """Such as "roi_align: mrcnn_tf custom float32"."""
        return f"{self.measurement}: " + " ".join(filter(None, (self.system, self.model, self.label)))

    @property
    def turn(self):
        """What those have in common that take turns: the family's models wouldn't fit into memory all at once.

        Faster and Mask R-CNN do, so that what the mask branch adds is a difference within one round.
        """
        model = " and ".join(MASK_BRANCH) if self.model in MASK_BRANCH else self.model
        return (model, self.precision) if self.model else None


def installed_peers(measurements):
    """The `PEERS` of some measurements whose package is installed (it isn't imported), and the others of them."""
    wanted = [peer for peer in PEERS if set(peer.measurements) & set(measurements)]
    installed = [peer for peer in wanted if importlib.util.find_spec(peer.package)]
    return installed, [peer for peer in wanted if peer not in installed]


def make_cases(measurement, settings, precisions, peers):
    """The `ComparedCase`s of one of `MEASUREMENTS`, ours first, those of one turn side by side.

    Args:
        settings: `Settings`.
        precisions: "float32" and, where it is native, "bfloat16".
        peers: those of `PEERS` to compare with.
    """
    if measurement == "family":
        return _make_family_cases(settings, precisions, peers)
    size = {"height": settings.height, "width": settings.width}
    model = {"config": settings.config, "overrides": settings.overrides, **size}
    cells = {side: pixels // ROI_STRIDE for side, pixels in size.items()}
    float32 = ("float32",)
    trained = {"7 RoIs": {**size, "positives": False}, "128 RoIs": {**size, "positives": True}}
    # Arguments of ours in each variant, those of the peers, and the precisions.
    our_variants, peer_variants, used = {
        "roofline": ({None: {"model": model}}, {}, float32),
        "roi_align": ({name: {"implementation": name, **cells} for name in IMPLEMENTATIONS}, {None: cells}, float32),
        "inference": ({None: model}, {None: size}, precisions),
        "breakdown": ({None: model}, {}, precisions),
        "panoptic": ({None: model}, {}, precisions),
        "training": ({None: model}, trained, precisions),
        "startup": ({None: model}, {None: size}, float32),
        "postprocessing": ({None: size}, {None: size}, float32),
        "pipeline": ({None: {}}, {None: {}}, float32),
        "replicas": ({f"{number} x CPU": model | {"replicas": number} for number in REPLICAS}, {}, float32),
        "checkpoints": ({None: model}, {}, float32),
        "serving": ({None: model, "custom ops": model | {"custom_ops": True}}, {}, precisions),
        "evaluation": ({name: {"backend": name} for name in BACKENDS}, {}, float32),
    }[measurement]
    systems = [(PACKAGE, MODULES[measurement], our_variants)]
    systems += [(peer.name, peer.module, peer_variants) for peer in peers if measurement in peer.measurements]
    cases = []
    for system, module, variants in systems:
        for precision in used:
            choice = {"precision": precision} if used is precisions else {}
            for variant, arguments in variants.items():
                arguments = arguments | choice
                cases.append(_make_case(measurement, system, module, measurement, arguments, precision, variant))
    return cases


def _make_family_cases(settings, precisions, peers):
    """The config of the settings has no say in it, and neither have its overrides, which the peers couldn't follow."""
    size = {"height": settings.height, "width": settings.width}
    overrides, cases = [f"model.pixel_std={[PIXEL_STD] * 3}"], []
    for name, model in FAMILY.items():
        systems = [(PACKAGE, MODULES["family"], "inference", {"config": model.config, "overrides": overrides})]
        systems += [(peer.name, peer.module, "family", {"model": name}) for peer in peers if peer.name == model.peer]
        for precision in precisions:
            for system, module, task, arguments in systems:
                arguments = arguments | size | {"precision": precision}
                cases.append(_make_case("family", system, module, task, arguments, precision, model=name))
    turns = list(dict.fromkeys(case.turn for case in cases))
    return sorted(cases, key=lambda case: turns.index(case.turn))


def _make_case(measurement, system, module, task, arguments, precision, variant=None, model=None):
    label = " ".join(filter(None, (variant, precision)))
    return ComparedCase(measurement, module, task, arguments, label, system, precision, variant, model)
