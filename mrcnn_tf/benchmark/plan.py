"""Which processes a measurement consists of: ours in each of its variants, and the installed peers'."""

import dataclasses
import importlib.util

from mrcnn_tf.benchmark import inputs

OURS = "mrcnn_tf"
IMPLEMENTATIONS = ("custom", "gather")  # of RoIAlign
MEASUREMENTS = (
    "roofline",
    "roi_align",
    "inference",
    "breakdown",
    "training",
    "startup",
    "postprocessing",
    "pipeline",
)  # fmt: skip
MODULES = "mrcnn_tf.benchmark"


@dataclasses.dataclass(frozen=True)
class Peer:
    """What a user might take instead: its name, the package to look for, how to install it, and what is compared."""

    name: str
    package: str
    distribution: str
    module: str
    measurements: tuple[str, ...]


PEERS = (
    Peer(
        "torchvision",
        "torchvision",
        "torchvision",
        f"{MODULES}.peers.torchvision",
        ("roi_align", "inference", "training", "startup", "postprocessing"),
    ),
    Peer("Model Garden", "official", "tf-models-official", f"{MODULES}.peers.model_garden", ("inference", "startup")),
)


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
    """One process of a measurement: whose, in which precision and variant, and what it runs."""

    measurement: str
    who: str
    precision: str
    variant: str | None
    module: str
    arguments: dict

    @property
    def label(self):
        """Such as "mrcnn_tf custom float32"."""
        return " ".join(filter(None, (self.who, self.variant, self.precision)))


def installed_peers():
    """The `PEERS` whose package is found (it isn't imported), and the others."""
    found = [peer for peer in PEERS if importlib.util.find_spec(peer.package)]
    return found, [peer for peer in PEERS if peer not in found]


def contenders(measurement, settings, precisions, peers):
    """The `Contender`s of one of `MEASUREMENTS`, ours first.

    Args:
        settings: `Settings`.
        precisions: "float32" and, where it is native, "bfloat16".
        peers: those of `PEERS` to compare with.
    """
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
        "training": ({None: model}, trained, precisions),
        "startup": ({None: model}, {None: size}, single),
        "postprocessing": ({None: size}, {None: size}, single),
        "pipeline": ({None: {}}, {}, single),
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
