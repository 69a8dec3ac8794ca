"""Checks the CUDA kernels on this machine's device, and times them beside torchvision's operation.

Needs a CUDA device, nvcc (or a library compiled elsewhere), numpy and PyTorch; torchvision is used if it is installed.
TensorFlow is not needed. Run it as `python check_roi_align.py`. It exits with 1 if a result is wrong, and with 2 if the
machine lacks what is needed.
"""

import argparse
import json
import math
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from roi_align_cases import make_cases
from roi_align_compare import compare
from roi_align_library import Library, compile_library, find_nvcc
from roi_align_timing import measure


def main(arguments=None):
    """Runs the program with the command line's arguments and returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--library", type=Path, help="compiled roi_align_cuda.cu, where there is no nvcc")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--markdown", type=Path, help="write the table of times to this file")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        return _refuse("There is no CUDA device that PyTorch can use.")
    if options.library and not options.library.is_file():
        return _refuse(f"There is no library {options.library}: give --library the path of a compiled one.")
    nvcc = None if options.library else find_nvcc()
    if not options.library and nvcc is None:
        return _refuse("There is no nvcc: put it on PATH, or give a library compiled elsewhere with --library.")
    with tempfile.TemporaryDirectory() as folder:
        library = Library((options.library or compile_library(nvcc, folder)).resolve())
        outcomes = _check(library)
        timings = list(measure(library))
    titles, rows = _table(timings)
    print(f"\n{_machine(timings)}\n\n{_fixed_width(titles, rows)}")
    if any(timing.through_float32 for timing in timings):
        print("\n* torchvision has no kernel of this type: through float32 and back, as under autocast")
    if options.json:
        options.json.write_text(json.dumps(_report(outcomes, timings), indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(_markdown(timings, titles, rows), encoding="utf-8")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _refuse(sentence):
    print(sentence, file=sys.stderr)
    return 2


def _check(library):
    """The outcomes of all comparisons; prints the worst of each kind and those that failed."""
    outcomes, worst = [], {}
    for case in make_cases():
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            outcomes += compare(library, case, dtype, "cuda")
    for outcome in outcomes:
        kind = (outcome.dtype, outcome.comparison.split(", level")[0])
        worst[kind] = max(worst.get(kind, outcome), outcome, key=lambda other: other.error)
    rows = [[*kind, f"{outcome.error:.3f}", outcome.case] for kind, outcome in sorted(worst.items())]
    print(_fixed_width(["type", "comparison", "error / tolerance", "worst case"], rows))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        print(f"WRONG: {outcome.case}, {outcome.dtype}, {outcome.comparison}: {outcome.error:.3g} times the tolerance")
    beside = any("torchvision" in outcome.comparison for outcome in outcomes)
    print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} comparisons hold{'' if beside else '; no torchvision here'}"
    )
    return outcomes


def _table(timings):
    titles = ["workload", "type", "direction", "ours ms", "torchvision ms", "ratio", "GB/s", "of peak"]
    rows = []
    for timing in timings:
        peer = "-" if timing.ratio is None else f"{timing.torchvision:.3f}{'*' * timing.through_float32}"
        ratio = "-" if timing.ratio is None else f"{timing.ratio:.1f}"
        figures = [f"{timing.own:.3f}", peer, ratio, f"{timing.rate:.0f}", f"{timing.fraction:.0%}"]
        rows.append([timing.workload, timing.dtype, timing.direction, *figures])
    return titles, rows


def _fixed_width(titles, rows):
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (titles, *rows)
    )


def _markdown(timings, titles, rows):
    lines = [titles, ["---"] * len(titles), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = "*: through float32 and back, as torchvision has no kernel of this type."
    return f"{_machine(timings)}\n\n{table}\n\n{note}\n"


def _report(outcomes, timings):
    return {
        "machine": _machine(timings),
        "peak_gigabytes_per_second": timings[0].peak,
        "comparisons": [
            asdict(outcome)
            | {"error": outcome.error if math.isfinite(outcome.error) else None, "passed": outcome.passed}
            for outcome in outcomes
        ],
        "timings": [
            asdict(timing) | {"ratio": timing.ratio, "rate": timing.rate, "fraction": timing.fraction}
            for timing in timings
        ],
    }


def _machine(timings):
    versions = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    return f"{torch.cuda.get_device_name()}, {versions}, {timings[0].peak:.0f} GB/s in a large copy"


if __name__ == "__main__":
    sys.exit(main())
