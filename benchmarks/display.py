"""A comparison for the eye: rich tables for the terminal, and a chart of the times beside the peers'."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.cases import PACKAGE, PRECISIONS
from mrcnn_tf.cli.benchmark import TIMES
from mrcnn_tf.cli.benchmark_processes import format_seconds, machine_lines

PAPERS_SHARE = "the paper: ~20% on typical models"  # section 3, Inference
STARTUP_STAGES = ("tensorflow", "mrcnn_tf", "build", "first_detection", "start_to_detection")
COLOURS = {PACKAGE: "#0b7285", "torchvision": "#f08c00", "Model Garden": "#868e96", "detectron2": "#ae3ec9"}
WIDTH, BAR, HEADING, FOOT = 9.0, 0.27, 0.42, 0.75  # of the chart, inches
PLOT_LEFT, PLOT_WIDTH = 0.26, 0.62  # of the chart's width


def comparison_table(comparison):
    """A `Comparison` as one rich renderable."""
    settings = comparison.settings
    subject = (
        f"{settings.config}, {settings.height} x {settings.width} pixels, random weights; "
        f"{settings.repeats} runs after the first; a peer's time also over ours in float32 and bfloat16"
    )
    lines = [*machine_lines(comparison.machine, comparison.versions), subject]
    notes = [
        f"Mask branch over Faster R-CNN, {precision}: {share:+.0%} ({PAPERS_SHARE})"
        for precision, share in comparison.mask_branch().items()
    ]
    notes += [
        f"Semantic head, map and fusion over Mask R-CNN, {precision}: {share:+.0%}"
        for precision, share in comparison.panoptic_price().items()
    ]
    notes += [f"Input pipeline: {rate:.0f} images per second" for rate in comparison.pipeline_rates()]
    prices = {
        "A step on two logical devices takes longer than on one": comparison.replicas_price(),
        "Checkpoints' share of the training time": comparison.checkpoint_price(),
    }
    notes += [f"{title}: {price:.1%}" for title, price in prices.items() if price is not None]
    notes += [
        f"Export over Keras model, {label}: {row['price']:.2f}; an answer by gRPC "
        f"{row['grpc_bytes'] / 1e3:.0f} kB, by REST {row['rest_bytes'] / 1e3:.0f} kB"
        for label, row in comparison.export_prices().items()
    ]
    if speedup := comparison.evaluation_speedup():
        notes.append(f"COCO's figures by hotcoco: {speedup:.1f} times as fast as pycocotools")
    tables = [_roofline_table(comparison)] if comparison.rates() else []
    tables += [_breakdown_table(precision, stages) for precision, stages in comparison.breakdowns().items()]
    tables += [_startup_table(result) for result in comparison.of("startup")]
    left_out = [f"Left out: {sentence}" for sentence in comparison.left_out]
    failed = [Text(f"FAILED: {sentence}", style="bold red") for sentence in comparison.failed]
    texts = [*map(Text, lines), _times_table(comparison), *map(Text, notes), *tables, *map(Text, left_out), *failed]
    return Group(*texts)


def _make_table(title, first, *numbers):
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _times_table(comparison):
    """Rows for everything that was timed, ours first; a peer's factors are over ours in each precision."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("")
    for heading in ("median", "fastest", "first", "/float32", "/bfloat16", "GiB"):
        table.add_column(heading, justify="right")
    for title, name, results in comparison.blocks():
        table.add_row(Text(title, style="bold"))
        for result in results:
            times = result.times[name]
            factors = [comparison.factor(result, name, precision) for precision in PRECISIONS]
            table.add_row(
                f"  {result.case.system} {result.case.label}",
                *(format_seconds(value) for value in (times.median, times.fastest, times.first)),
                *(f"{factor:.2f}" if factor else "" for factor in factors),
                f"{result.peak_memory / 2**30:.2f}",
            )
    return table


def _roofline_table(comparison):
    table = _make_table("The processor's limits", "", *PRECISIONS)
    rates, rooflines = comparison.rates(), comparison.rooflines()
    for operation, text in (("product", "matrix product"), ("convolution", "3x3 convolution, 256 channels")):
        row = [rates.get(f"{operation}_{precision}") for precision in PRECISIONS]
        table.add_row(text, *(f"{rate / 1e9:.0f} GFLOP/s" if rate else "" for rate in row))
    if rooflines:
        row = [rooflines.get(precision) for precision in PRECISIONS]
        table.add_row("operations of an image", *(f"{r['operations'] / 1e9:.0f} GFLOP" if r else "" for r in row))
        table.add_row("at the product's rate", *(f"{r['bound']:.2f} s" if r else "" for r in row))
        table.add_row("fraction reached", *(f"{r['fraction']:.0%}" if r else "" for r in row))
        # Winograd's algorithm takes fewer multiplications than are counted.
        table.caption = "Counted as plain convolutions: above 100% is Winograd's doing."
    return table


def _breakdown_table(precision, stages):
    title = f"Where detection spends its time, {precision}"
    table = _make_table(title, "stage", "seconds", "share", "GFLOP", "GFLOP/s")
    total = sum(stage["seconds"] for stage in stages.values())
    for name, stage in stages.items():
        seconds, operations = stage["seconds"], stage["operations"]
        counted = (f"{operations / 1e9:.1f}", f"{operations / seconds / 1e9:.0f}") if operations else ("", "")
        table.add_row(name, f"{seconds:.3f}", f"{seconds / total:.0%}", *counted)
    return table


def _startup_table(result):
    table = _make_table("From process start to the first detection", "stage", "seconds", "fastest")
    for name in STARTUP_STAGES:
        table.add_row(TIMES[name], f"{result.times[name].median:.2f}", f"{result.times[name].fastest:.2f}")
    return table


def draw_chart(comparison, path):
    """Write a PNG of the times that have a peer, with the factor to our fastest in the same precision.

    There is a panel for each thing that was timed and a bar for each time, ours on top. Where nothing has a peer, as no
    other is installed or measured, it is of all times.
    """
    compared = [block for block in comparison.blocks() if len({result.case.system for result in block[2]}) > 1]
    panels = compared or comparison.blocks()
    heights = [BAR * len(results) + HEADING for _, _, results in panels]
    total = sum(heights) + FOOT
    figure = Figure(figsize=(WIDTH, total), dpi=140, facecolor="white")
    FigureCanvasAgg(figure)
    top = total
    for (title, name, results), height in zip(panels, heights, strict=True):
        top -= height
        axes = figure.add_axes((PLOT_LEFT, top / total, PLOT_WIDTH, (height - HEADING) / total))
        _draw_panel(axes, title, name, results, comparison)
    machine, settings = comparison.machine, comparison.settings
    factors = f"; the factor is to {PACKAGE} in the same precision" if compared else ""
    figure.text(
        0.02,
        0.28 / total,
        f"Medians of {settings.repeats} runs, shorter is better{factors}.\n"
        f"{settings.config}, {settings.height} x {settings.width} pixels. {machine['processor']}, "
        f"{machine['cores']} cores, {machine['date']}.",
        fontsize=8,
        color="#495057",
        va="center",
    )
    figure.savefig(path, format="png")


def _draw_panel(axes, title, name, results, comparison):
    medians = [result.times[name].median for result in results]
    axes.set_yticks(range(len(results)), [f"{r.case.system}  {r.case.label}" for r in results], fontsize=8.5)
    for position, (result, seconds) in enumerate(zip(results, medians, strict=True)):
        shade = 1.0 if result.case.precision == "float32" else 0.6
        axes.barh(position, seconds, height=0.78, color=COLOURS[result.case.system], alpha=shade)
        factor = comparison.factor(result, name, result.case.precision)
        weight = "bold" if seconds == min(medians) else "normal"
        text = f" {format_seconds(seconds)}" + (f"   {factor:.1f}x" if factor else "")
        axes.text(seconds, position, text, va="center", fontsize=8.5, fontweight=weight)
    for label, result in zip(axes.get_yticklabels(), results, strict=True):
        label.set_color(COLOURS[result.case.system])
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", pad=3)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xlim(0, max(medians))
    axes.set_xticks([])
    axes.tick_params(left=False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
