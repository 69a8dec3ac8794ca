"""Plans the runs of an ablation, starts those that aren't there yet, one after the other, and gathers the outcomes."""

import dataclasses
import hashlib
import json
import pathlib
import re
import subprocess
import sys

from mrcnn_tf.ablation.report import Ablation, Outcome
from mrcnn_tf.ablation.tables import TABLES
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.config.load import load_config
from mrcnn_tf.datasets.shapes import make_shapes

BASE = pathlib.Path(__file__).parent / "base.yaml"
RESULT = "result.json"
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
    """One training: the row's label, the seed, settings over `base.yaml` but for the data's paths, and its folder."""

    label: str
    seed: int
    settings: tuple[str, ...]
    folder: pathlib.Path


def run_ablation(name, budget, out, rows=(), overrides=(), tell=lambda sentence: None):
    """Trains and evaluates a table's rows.

    Each run writes into a folder under `out` whose name follows from its settings, so that runs which are there already
    are taken as they are, also after an interruption.

    Args:
        name: of `TABLES`.
        budget: the `Budget` of every row.
        out: folder of pictures and runs; made if missing.
        rows: labels of rows or their numbers from 1, as text; empty: all of them.
        overrides: `key.path=value` settings of every row.
        tell: called with a sentence before each run.

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
    chosen = _choose(table.rows, rows)
    budget = dataclasses.replace(budget, size=budget.size or table.size)
    runs = plan_runs(name, table, chosen, budget, out, overrides)
    for run in runs[: len(chosen)]:
        load_config(BASE, run.settings)  # a mistake in a setting is to be named before anything is started
    data = _data_settings(out, table.look, budget, tell)
    result = Ablation(
        name,
        dataclasses.replace(table, rows=chosen),
        dataclasses.asdict(budget) | {"val_images": budget.val_images},
        list(overrides),
    )
    for number, run in enumerate(runs, 1):
        title = f"{number}/{len(runs)} {run.label}, seed {run.seed}"
        if not (run.folder / RESULT).is_file():
            tell(title)
            if reason := _start(run, data):
                result.failed.append(f"{run.label}, seed {run.seed}: {reason} (all of it: {run.folder / 'run.log'})")
                continue
        else:
            tell(f"{title}: done before")
        result.outcomes.append(Outcome(run.label, run.seed, json.loads((run.folder / RESULT).read_text())))
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
    runs = []
    for seed in range(budget.seeds):
        for row in rows:
            seeds = f"train.seed={seed}", f"data.train.seed={seed}"
            settings = (*table.settings, *row.settings, *schedule, *overrides, *seeds)
            key = json.dumps(
                [BASE.read_text(encoding="utf-8"), settings, budget.images, dataclasses.asdict(table.look)]
            )
            slug = re.sub(r"[^a-z0-9]+", "-", row.label.lower()).strip("-")
            folder = out / f"table-{name}" / f"{slug}-seed{seed}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
            runs.append(Run(row.label, seed, settings, folder))
    return runs


def _choose(rows, wanted):
    """The rows that `wanted` names, in the table's order; all of them if it is empty."""
    labels = [row.label for row in rows]
    numbers = set()
    for one in wanted:
        if one in labels:
            numbers.add(labels.index(one))
        elif one.isdigit() and 1 <= int(one) <= len(rows):
            numbers.add(int(one) - 1)
        else:
            known = "; ".join(f"{number} {label}" for number, label in enumerate(labels, 1))
            raise UserError(f"There is no row '{one}': give labels or numbers of {known}.")
    return tuple(row for number, row in enumerate(rows) if number in numbers or not wanted)


def _data_settings(out, look, budget, tell):
    """Makes the pictures that aren't there yet; returns the settings that point to them."""
    settings = []
    for split, images, seed in (("train", budget.images, TRAIN_SEED), ("val", budget.val_images, VAL_SEED)):
        kinds = "-".join(look.kinds) or "shapes"
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(look)).encode()).hexdigest()[:8]
        folder = out.absolute() / "pictures" / f"{images}-{kinds}-{budget.size}-pixels-seed{seed}-{digest}"
        if not (folder / "annotations.json").is_file():
            tell(f"Drawing {images} pictures of {budget.size} pixels: {folder}")
            make_shapes(folder, images, seed, budget.size, look)
        settings += [
            f"data.{split}.annotations={folder / 'annotations.json'}",
            f"data.{split}.images={folder / 'images'}",
        ]
    return settings


def _start(run, data):
    """Trains in a process of its own, whose memory is free afterwards; returns why it failed, or None."""
    run.folder.mkdir(parents=True, exist_ok=True)
    arguments = json.dumps({"overrides": [*run.settings, *data], "folder": str(run.folder)})
    with atomic_write(run.folder / "run.log") as log, open(log, "w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "mrcnn_tf.ablation.worker", arguments]
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT).returncode
    if status == 0:
        return None
    if status < 0:
        return f"ended by signal {-status} (9: out of memory)"
    lines = (run.folder / "run.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"ended with status {status}"
