"""Run an ablation: train and evaluate the rows of one of the paper's tables on generated pictures, each in a process.

The process that plans and compares imports no TensorFlow. Each training is `python -m benchmarks.ablation ARGUMENTS`, a
json object with `overrides` over `ablation.yaml` and the `folder` for what training leaves and `result.json`.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

from benchmarks.ablation_tables import TABLES, Ablation, FinishedRun
from mrcnn_tf.cli.benchmark_processes import peak_memory
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.config.load import load_config
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.datasets.shapes import make_shapes

BASE = pathlib.Path(__file__).parent / "ablation.yaml"
RESULT, LOG, CHECKPOINTS = "result.json", "run.log", "checkpoints"  # in a run's folder
TRAIN_SEED, VAL_SEED = 0, 1  # of the pictures


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every row gets.

    Attributes:
        steps: of training.
        seeds: how many trainings of each row, with seeds 0, 1, ...; the pictures are the same.
        images: how many to train on.
        size: of them, pixels; None: the table's.
    """

    steps: int = 600
    seeds: int = 3
    images: int = 1000
    size: int | None = None

    @property
    def val_images(self):
        """How many pictures to evaluate on: a fifth as many as to train on."""
        return max(1, self.images // 5)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: the row's label, the seed, settings over `ablation.yaml` but the data's paths, and its folder."""

    label: str
    seed: int
    settings: tuple[str, ...]
    folder: pathlib.Path


def run_ablation(name, budget, out, rows=(), overrides=(), report=lambda sentence: None):
    """Train and evaluate a table's rows.

    Each run writes into a folder under `out` whose name follows from its settings, so that runs which are there already
    are taken as they are, also after an interruption.

    Args:
        name: of `TABLES`.
        budget: the `Budget` of every row.
        out: folder of pictures and runs; made if missing.
        rows: labels of rows or their numbers from 1, as text; empty: all of them.
        overrides: `key.path=value` settings of every row.
        report: called with a sentence before each run.

    Returns:
        `Ablation`. A run that failed is named in it and doesn't stop the rest.

    Raises:
        UserError: an unknown table or row, a budget of nothing, or settings that can't be used.
    """
    if name not in TABLES:
        raise UserError(f"There is no table '{name}': choose one of {', '.join(TABLES)}.")
    if min(budget.steps, budget.seeds, budget.images) < 1:
        raise UserError("Steps, seeds and images must be at least 1 each.")
    table, out = TABLES[name], pathlib.Path(out)
    chosen = _choose_rows(table.rows, rows)
    budget = dataclasses.replace(budget, size=budget.size or table.size)
    runs = plan_runs(name, table, chosen, budget, out, overrides)
    for run in runs[: len(chosen)]:
        load_config(BASE, run.settings)  # a mistake in a setting is to be named before anything is started
    data = _make_data(out, table.look, budget, report)
    result = Ablation(
        name,
        dataclasses.replace(table, rows=chosen),
        dataclasses.asdict(budget) | {"val_images": budget.val_images},
        list(overrides),
    )
    for number, run in enumerate(runs, 1):
        title = f"{number}/{len(runs)} {run.label}, seed {run.seed}"
        if not (run.folder / RESULT).is_file():
            report(title)
            if reason := _train(run, data):
                result.failed.append(f"{run.label}, seed {run.seed}: {reason} (all of it: {run.folder / LOG})")
                continue
        else:
            report(f"{title}: done before")
        result.runs.append(FinishedRun(run.label, run.seed, json.loads((run.folder / RESULT).read_text())))
    return result


def plan_runs(name, table, rows, budget, out, overrides):
    """The `Run`s in order: all rows with one seed, then with the next, so that what is there first can be compared."""
    schedule = (
        f"model.resize={{min_size: {budget.size}, max_size: {budget.size}}}",
        f"train.steps={budget.steps}",
        f"train.epoch_steps={budget.steps}",
        f"train.warmup_steps={budget.steps // 10}",
        f"train.decay_steps=[{budget.steps * 7 // 10}, {budget.steps * 9 // 10}]",
    )
    runs, base = [], BASE.read_text(encoding="utf-8")
    for seed in range(budget.seeds):
        for row in rows:
            seeds = f"train.seed={seed}", f"data.train.seed={seed}"
            settings = (*table.settings, *row.settings, *schedule, *overrides, *seeds)
            slug = re.sub(r"[^a-z0-9]+", "-", row.label.lower()).strip("-")
            digest = _digest([base, settings, budget.images, dataclasses.asdict(table.look)])
            folder = out / f"table-{name}" / f"{slug}-seed{seed}-{digest}"
            runs.append(Run(row.label, seed, settings, folder))
    return runs


def _digest(value):
    """Eight characters that tell folders apart whose settings differ."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]


def _choose_rows(rows, wanted):
    """The rows that `wanted` names, in the table's order; all of them if it is empty."""
    labels = [row.label for row in rows]
    numbers = set()
    for label in wanted:
        if label in labels:
            numbers.add(labels.index(label))
        elif label.isdigit() and 1 <= int(label) <= len(rows):
            numbers.add(int(label) - 1)
        else:
            known = "; ".join(f"{number} {name}" for number, name in enumerate(labels, 1))
            raise UserError(f"There is no row '{label}': give labels or numbers of {known}.")
    return tuple(row for number, row in enumerate(rows) if number in numbers or not wanted)


def _make_data(out, look, budget, report):
    """Draw the pictures that aren't there yet; returns the settings that point to them."""
    settings = []
    for split, images, seed in (("train", budget.images, TRAIN_SEED), ("val", budget.val_images, VAL_SEED)):
        kinds = "-".join(look.kinds) or "shapes"
        name = f"{images}-{kinds}-{budget.size}-pixels-seed{seed}-{_digest(dataclasses.asdict(look))}"
        folder = out.absolute() / "pictures" / name
        if not (folder / "annotations.json").is_file():
            report(f"Drawing {images} pictures of {budget.size} pixels: {folder}")
            make_shapes(folder, images, seed, budget.size, look)
        settings += [
            f"data.{split}.annotations={folder / 'annotations.json'}",
            f"data.{split}.images={folder / 'images'}",
        ]
    return settings


def _train(run, data):
    """Train in a process of its own, whose memory is free afterwards; returns why it failed, or None."""
    run.folder.mkdir(parents=True, exist_ok=True)
    arguments = json.dumps({"overrides": [*run.settings, *data], "folder": str(run.folder)})
    with atomic_write(run.folder / LOG) as log, open(log, "w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "benchmarks.ablation", arguments]
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT).returncode
    if status == 0:
        return None
    if status < 0:
        return f"ended by signal {-status} (9: out of memory)"
    lines = (run.folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"ended with status {status}"


def run_row(overrides, folder):
    """Train by `ablation.yaml` and the overrides, evaluate once at the end and write `result.json` into the folder."""
    from mrcnn_tf.evaluation.evaluate_model import evaluate
    from mrcnn_tf.training.trainer import train

    config = load_config(BASE, overrides)
    folder, val = pathlib.Path(folder), config.data.val
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # of a run that didn't get to its result
    # An evaluation after each epoch would take longer than the training.
    run = train(dataclasses.replace(config, data=dataclasses.replace(config.data, val=DataConfig())), folder, verbose=0)
    results, _ = evaluate(run.model, val, progress=False)
    (folder / "model.keras").unlink()  # tens of runs of hundreds of megabytes, which nobody needs
    shutil.rmtree(folder / CHECKPOINTS)
    result = {
        "figures": results.to_json(),
        "losses": run.history[-1],
        "seconds": run.seconds,
        "peak_memory": peak_memory(),
        "overrides": overrides,
    }
    with atomic_write(folder / RESULT) as file:
        file.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    try:
        run_row(**json.loads(sys.argv[1]))
    except UserError as error:
        sys.exit(str(error))
