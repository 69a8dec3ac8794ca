"""Runs the measurements one after the other and gathers what they give."""

import itertools
import statistics

from mrcnn_tf.benchmark import machine, plan
from mrcnn_tf.benchmark.processes import FreshProcess, LeftOut, Process, take_turns
from mrcnn_tf.benchmark.report import Entry, Report, Times
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config

FRESH = "startup"  # the measurement whose runs are processes of their own
SLOW = ("startup", "evaluation")  # the Model Garden takes minutes to its first detection, pycocotools to its figures
SLOW_RUNS = 3  # at most
OF_MODELS = {
    "inference",
    "family",
    "breakdown",
    "panoptic",
    "training",
    "serving",
}  # in each precision, which the roofline's process knows


def run_benchmark(settings, only=(), report=lambda sentence: None):
    """Measures this package and the installed peers.

    Args:
        settings: `plan.Settings`.
        only: names of `plan.MEASUREMENTS`; empty: all of them.
        report: called with a line before each process is started.

    Returns:
        `Report`. What couldn't be measured is named in it and doesn't stop the rest.

    Raises:
        UserError: an unknown measurement, or a config that can't be used.
    """
    for name in only:
        if name not in plan.MEASUREMENTS:
            raise UserError(f"There is no measurement '{name}': choose of {', '.join(plan.MEASUREMENTS)}.")
    load_config(settings.config, settings.overrides)  # a mistake in it is to be named before anything is started
    wanted = [name for name in plan.MEASUREMENTS if not only or name in only]
    peers, missing = plan.installed_peers(wanted)
    result = Report(settings, machine.describe_machine(), machine.library_versions())
    result.left_out = [f"{peer.name} isn't installed ({peer.remedy})." for peer in missing]
    if OF_MODELS & set(wanted) and "roofline" not in wanted:
        wanted.insert(0, "roofline")
    precisions = ["float32"]
    for position, name in enumerate(wanted, 1):
        found = plan.contenders(name, settings, precisions, peers)
        repeats = min(settings.repeats, SLOW_RUNS) if name in SLOW else settings.repeats
        entries = []
        for _, group in itertools.groupby(found, lambda contender: contender.turn):
            entries += _measure(group, repeats, result, lambda c, p=position: report(f"{p}/{len(wanted)} {c}"))
        if name == "roofline" and entries and entries[0].facts["native_bfloat16"]:
            precisions.append("bfloat16")
    return result


def _measure(group, repeats, result, report):
    """Lets a group take turns; adds its entries, failures and omissions to the `Report`; returns the entries."""
    processes = {
        (FreshProcess if contender.measurement == FRESH else Process)(contender.module, contender.arguments): contender
        for contender in group
    }

    def name(process):
        return f"{processes[process].measurement}: {processes[process].label}"

    entries = []
    outcomes = take_turns(list(processes), repeats, lambda process: report(name(process)))
    for process, outcome in zip(processes, outcomes, strict=True):
        if isinstance(outcome, dict):
            entries.append(_entry(processes[process], outcome))
        else:
            sentences = result.left_out if isinstance(outcome, LeftOut) else result.failed
            sentences.append(f"{name(process)}: {outcome}")
    result.entries += entries
    return entries


def _entry(contender, summary):
    times = {}
    for name, first in summary["first"].items():
        runs = [run[name] for run in summary["runs"]]
        times[name] = Times(first, statistics.median(runs), min(runs), runs)
    return Entry(
        contender.measurement,
        contender.who,
        contender.precision,
        contender.variant,
        times,
        summary["peak_memory"],
        summary["facts"],
        contender.subject,
    )
