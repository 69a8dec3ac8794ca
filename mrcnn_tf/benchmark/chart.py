"""The report as a picture: a bar for each time, ours on top, one panel for each thing that was timed."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mrcnn_tf.benchmark.plan import OURS
from mrcnn_tf.benchmark.table import readable

COLOURS = {OURS: "#0b7285", "torchvision": "#f08c00", "Model Garden": "#868e96", "detectron2": "#ae3ec9"}
WIDTH, BAR, HEADING, FOOT = 9.0, 0.27, 0.42, 0.75  # inches


def draw_chart(report, path):
    """Writes a PNG of the times that have a peer, with the ratio to our fastest in the same precision.

    Where no time has one, as nothing else is installed or measured, it is of all times.
    """
    compared = [block for block in report.blocks() if len({entry.who for entry in block[2]}) > 1]
    panels = compared or report.blocks()
    heights = [BAR * len(bars) + HEADING for _, _, bars in panels]
    total = sum(heights) + FOOT
    figure = Figure(figsize=(WIDTH, total), dpi=140, facecolor="white")
    FigureCanvasAgg(figure)
    top = total
    for (what, name, bars), height in zip(panels, heights, strict=True):
        top -= height
        axes = figure.add_axes((0.26, top / total, 0.62, (height - HEADING) / total))
        _panel(axes, what, name, bars, report)
    machine, settings = report.machine, report.settings
    factors = f"; the factor is to {OURS} in the same precision" if compared else ""
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
    figure.savefig(path)


def _panel(axes, what, name, bars, report):
    medians = [entry.times[name].median for entry in bars]
    for position, (entry, seconds) in enumerate(zip(bars, medians, strict=True)):
        shade = 1.0 if entry.precision == "float32" else 0.6
        axes.barh(position, seconds, height=0.78, color=COLOURS[entry.who], alpha=shade)
    axes.set_yticks(range(len(bars)), [f"{entry.who}  {entry.label}" for entry in bars], fontsize=8.5)
    for position, (entry, seconds) in enumerate(zip(bars, medians, strict=True)):
        factor = report.factor(entry, name, entry.precision)
        weight = "bold" if seconds == min(medians) else "normal"
        text = f" {readable(seconds)}" + (f"   {factor:.1f}x" if factor else "")
        axes.text(seconds, position, text, va="center", fontsize=8.5, fontweight=weight)
    for label, entry in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_color(COLOURS[entry.who])
    axes.set_title(what, loc="left", fontsize=10, fontweight="bold", pad=3)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, max(medians))
    axes.set_xticks([])
    axes.tick_params(left=False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
