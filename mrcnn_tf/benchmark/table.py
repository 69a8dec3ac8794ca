"""The report for the eye, as rich tables."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

PAPERS_SHARE = "the paper: ~20% on typical models"  # section 3, Inference
STAGES = {
    "tensorflow": "import tensorflow",
    "keras": "import keras",
    "mrcnn_tf": "import mrcnn_tf",
    "build": "build the model",
    "first_detection": "first detection",
    "start_to_detection": "from process start",
}


def benchmark_table(report):
    """A `Report` as one rich renderable."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items() if version)
    lines = [
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores (all used by everyone), "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['system']}; "
        f"load before the start {machine['load']:.1f}",
        f"Python {machine['python']}, {versions}",
        f"{report.settings.config}, {report.settings.height} x {report.settings.width} pixels, random weights; "
        f"{report.settings.repeats} runs after the first; a peer's time also over ours in float32 and bfloat16",
    ]
    parts = [Text(line) for line in lines]
    parts.append(_side_by_side(report))
    parts += [
        Text(f"Mask branch over Faster R-CNN, {precision}: {share:+.0%} ({PAPERS_SHARE})")
        for precision, share in report.mask_branch().items()
    ]
    parts += [
        Text(f"Semantic head, map and fusion over Mask R-CNN, {precision}: {share:+.0%}")
        for precision, share in report.panoptic_price().items()
    ]
    parts += [Text(f"Input pipeline: {rate:.0f} images per second") for rate in report.pipeline_rates()]
    prices = {
        "A step on two logical devices takes longer than on one": report.replicas_price(),
        "Checkpoints' share of the training time": report.checkpoint_price(),
    }
    parts += [Text(f"{what}: {price:.1%}") for what, price in prices.items() if price is not None]
    parts += [
        Text(
            f"Export over Keras model, {label}: {row['price']:.2f}; an answer by gRPC "
            f"{row['grpc_bytes'] / 1e3:.0f} kB, by REST {row['rest_bytes'] / 1e3:.0f} kB"
        )
        for label, row in report.export_prices().items()
    ]
    if report.evaluation_speedup():
        parts.append(Text(f"COCO's figures by hotcoco: {report.evaluation_speedup():.1f} times as fast as pycocotools"))
    if report.rates():
        parts.append(_roofline(report))
    parts += [_breakdown(precision, rows) for precision, rows in report.breakdowns().items()]
    if report.of("startup"):
        parts.append(_startup(report.of("startup")[0]))
    parts += [Text(f"Left out: {sentence}") for sentence in report.left_out]
    parts += [Text(f"FAILED: {sentence}", style="bold red") for sentence in report.failed]
    return Group(*parts)


def _table(title, first, *numbers):
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _side_by_side(report):
    """A block of rows for each thing that was timed, ours first; a peer's factors are over ours in each precision."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("")
    for heading in ("median", "fastest", "first", "/float32", "/bfloat16", "GiB"):
        table.add_column(heading, justify="right")
    for what, name, entries in report.blocks():
        table.add_row(Text(what, style="bold"))
        for entry in entries:
            times = entry.times[name]
            factors = [report.factor(entry, name, precision) for precision in ("float32", "bfloat16")]
            table.add_row(
                f"  {entry.who} {entry.label}",
                *(readable(value) for value in (times.median, times.fastest, times.first)),
                *(f"{factor:.2f}" if factor else "" for factor in factors),
                f"{entry.peak_memory / 2**30:.2f}",
            )
    return table


def _roofline(report):
    table = _table("The processor's limits", "", "float32", "bfloat16")
    rates, roofs = report.rates(), report.rooflines()
    precisions = ("float32", "bfloat16")
    for kind, text in (("product", "matrix product"), ("convolution", "3x3 convolution, 256 channels")):
        row = [rates.get(f"{kind}_{precision}") for precision in precisions]
        table.add_row(text, *(f"{rate / 1e9:.0f} GFLOP/s" if rate else "" for rate in row))
    if roofs:
        found = [roofs.get(precision) for precision in precisions]
        table.add_row("operations of an image", *(f"{r['operations'] / 1e9:.0f} GFLOP" if r else "" for r in found))
        table.add_row("at the product's rate", *(f"{r['bound']:.2f} s" if r else "" for r in found))
        table.add_row("fraction reached", *(f"{r['fraction']:.0%}" if r else "" for r in found))
        # Winograd's algorithm takes fewer multiplications than are counted.
        table.caption = "Counted as plain convolutions: above 100% is Winograd's doing."
    return table


def _breakdown(precision, parts):
    table = _table(f"Where detection spends its time, {precision}", "part", "seconds", "share", "GFLOP", "GFLOP/s")
    total = sum(part["seconds"] for part in parts.values())
    for name, part in parts.items():
        seconds, operations = part["seconds"], part["operations"]
        counted = (f"{operations / 1e9:.1f}", f"{operations / seconds / 1e9:.0f}") if operations else ("", "")
        table.add_row(name, f"{seconds:.3f}", f"{seconds / total:.0%}", *counted)
    return table


def _startup(entry):
    table = _table("From process start to the first detection", "stage", "seconds", "fastest")
    for name, text in STAGES.items():
        table.add_row(text, f"{entry.times[name].median:.2f}", f"{entry.times[name].fastest:.2f}")
    return table


def readable(seconds):
    """Seconds with three digits that matter: "0.190 s", "12.3 s", "7.0 ms"."""
    if seconds < 0.1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s"
