import json
import statistics

import pytest
from rich.console import Console

from benchmarks import ablation
from benchmarks.ablation import BASE, RESULT, Budget, plan_runs, run_ablation
from benchmarks.ablation_tables import TABLES, Ablation, FinishedRun, PaperTable, Row, ablation_table
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.datasets.shapes import Look

# As the paper's text and captions have them, where they can be held against the tables' rows.
STATED = {
    ("2b", "segm.AP"): 5.5,
    ("2d", "segm.AP"): 7.3,
    ("2d", "segm.AP50"): 5.3,
    ("2d", "segm.AP75"): 10.5,
    ("2d", "bbox.AP"): 5.8,
    ("2d", "bbox.AP50"): 2.6,
    ("2d", "bbox.AP75"): 9.5,
    ("2e", "segm.AP"): 2.1,
    ("6", "keypoints.AP"): 4.4,
}


@pytest.mark.parametrize("name, figure", STATED)
def test_first_and_last_row_differ_as_the_paper_says(name, figure):
    table = TABLES[name]
    position = table.figures.index(figure)
    assert table.rows[-1].paper[position] - table.rows[0].paper[position] == pytest.approx(STATED[name, figure])


def test_rows_of_different_tables_that_are_one_model_have_the_same_figures():
    def paper(name, label):
        return next(row.paper for row in TABLES[name].rows if row.label == label)

    assert paper("2c", "RoIAlign ave") == paper("2b", "sigmoid") == paper("2a", "ResNet-18-C4")
    assert paper("agnostic", "class-specific") == paper("2b", "sigmoid")[:1]
    assert paper("2e", "FCN") == paper("2a", "ResNet-18-FPN")


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_complete_and_differ_only_by_their_settings(name, tmp_path):
    table = TABLES[name]
    runs = plan_runs(name, table, table.rows, Budget(seeds=1, size=64), tmp_path, [])
    configs = [load_config(BASE, run.settings) for run in runs]
    for row, config in zip(table.rows, configs, strict=True):
        assert len(row.paper) == len(table.figures)
        with_kinds = {figure.partition(".")[0] for figure, value in zip(table.figures, row.paper, strict=True) if value}
        assert ("segm" in with_kinds) <= (config.model.mask_head is not None)
        assert ("keypoints" in with_kinds) <= (config.model.keypoint_head is not None)
        assert config.train == configs[0].train
        assert config.train.steps == 600 and config.model.resize.min_size == 64
    assert len({run.settings for run in runs}) == len({run.folder for run in runs}) == len(runs)
    models = [json.dumps(config.model, default=vars) for config in configs]
    assert len(set(models)) == len(models)


def test_runs_go_seed_by_seed_and_have_folders_by_what_they_are(tmp_path):
    table = TABLES["2e"]

    def folders(overrides=(), **budget):
        return [
            run.folder for run in plan_runs("2e", table, table.rows, Budget(size=64, **budget), tmp_path, overrides)
        ]

    runs = plan_runs("2e", table, table.rows, Budget(seeds=2, size=64), tmp_path, [])
    assert [(run.label, run.seed) for run in runs] == [(row.label, seed) for seed in (0, 1) for row in table.rows]
    assert folders(seeds=2)[:3] == folders(seeds=1)
    others = [folders(seeds=1, steps=7), folders(seeds=1, images=9), folders(["train.momentum=0.5"], seeds=1)]
    every = [*folders(seeds=2), *(folder for changed in others for folder in changed)]
    assert len(set(every)) == len(every)


FIGURES = ("segm.AP", "bbox.AP")
ROWS = (Row("first", (10.0, 20.0)), Row("up", (12.0, 20.0)), Row("down", (8.0, None)), Row("gone", (9.0, 9.0)))


def _run(label, seed, mask, box=None):
    figures = {"bbox": {"AP": box}, "segm": None if mask is None else {"AP": mask}}
    return FinishedRun(label, seed, {"figures": figures, "seconds": 3.0})


def _ablation(*outcomes):
    table = PaperTable("a title", FIGURES, (), ROWS, 128, Look())
    budget = {"steps": 1, "seeds": 2, "images": 3, "val_images": 4, "size": 5}
    return Ablation("x", table, budget, [], list(outcomes), ["gone, seed 0: broke"])


def _figures(ablation):
    return {(figure.label, figure.figure): figure for figure in ablation.row_figures()}


def test_differences_spread_and_verdicts():
    ablation = _ablation(
        _run("first", 0, 0.20, 0.5),
        _run("first", 1, 0.22, 0.5),
        _run("up", 0, 0.30, 0.7),
        _run("up", 1, 0.34, 0.7),
        _run("down", 0, 0.23, 0.1),
        _run("down", 1, 0.25, 0.1),
    )
    figures = _figures(ablation)
    # Variances 2, 8 and 2 points squared with a degree of freedom each.
    assert ablation.spread("segm.AP") == pytest.approx(2.0)
    assert figures["first", "segm.AP"].values == pytest.approx([20, 22])
    assert figures["first", "segm.AP"].verdict == "" and figures["first", "segm.AP"].difference is None
    assert figures["up", "segm.AP"].difference == pytest.approx(11)
    assert figures["up", "segm.AP"].paper_difference == 2.0
    assert figures["up", "segm.AP"].verdict == "same sign"
    assert figures["down", "segm.AP"].difference == pytest.approx(3)  # against a noise of 2 * 2 * sqrt(1/2 + 1/2) = 4
    assert figures["down", "segm.AP"].verdict == "within noise"
    assert figures["up", "bbox.AP"].verdict == "no difference in the paper"
    assert figures["down", "bbox.AP"].difference == pytest.approx(-40) and figures["down", "bbox.AP"].verdict == ""
    assert figures["gone", "segm.AP"].values == [] and figures["gone", "segm.AP"].verdict == ""


def test_an_opposite_sign_is_called_so():
    figures = _figures(_ablation(*(_run(*run) for run in (("first", 0, 0.2), ("first", 1, 0.21), ("down", 0, 0.4)))))
    assert figures["down", "segm.AP"].verdict == "opposite sign"


def test_one_seed_tells_nothing():
    figures = _figures(_ablation(_run("first", 0, 0.2, 0.1), _run("up", 0, 0.9, 0.9)))
    assert figures["up", "segm.AP"].verdict == "one seed"


def test_table_and_json_hold_everything():
    ablation = _ablation(_run("first", 0, 0.2, 0.1), _run("first", 1, 0.3, 0.1), _run("up", 0, None, 0.9))
    console = Console(width=140, record=True)
    console.print(ablation_table(ablation))
    text = console.export_text()
    for word in ("a title", "mask AP", "box AP", "25.0", f"{statistics.stdev([20, 30]):.1f}", "+2.0", "FAILED: gone"):
        assert word in text
    data = json.loads(json.dumps(ablation.to_json()))
    assert len(data["row_figures"]) == 8 and len(data["runs"]) == 3 and data["failed"] == ["gone, seed 0: broke"]


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"name": "9"}, "choose one of 2a, 2b"),
        ({"rows": ["FNC"]}, "1 MLP 2 fc; 2 MLP 3 fc; 3 FCN"),
        ({"rows": ["4"]}, "There is no row '4'"),
        ({"budget": Budget(steps=0)}, "at least 1"),
        ({"overrides": ["model.mask_haed.fcs=1"]}, "did you mean model.mask_head"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, arguments, word):
    arguments = {"name": "2e", "budget": Budget(), "out": tmp_path / "out"} | arguments
    with pytest.raises(UserError, match=word):
        run_ablation(**arguments)
    assert not (tmp_path / "out").exists()


SMALL = [
    "model.fpn.channels=32",
    "model.box_head.channels=16",
    "model.mask_head.convs=1",
    "model.rpn.channels=16",
    "train.images_per_batch=1",
    "train.precision=float32",
]


def test_finished_runs_stay_and_a_failure_loses_nothing_else(tmp_path, monkeypatch):
    budget, reported = Budget(steps=1, seeds=1, images=2, size=64), []
    result = run_ablation("2e", budget, tmp_path, ["FCN"], SMALL, reported.append)
    assert result.failed == [] and reported[-1] == "1/1 FCN, seed 0" and len(reported) == 3
    (run,) = result.runs
    assert 0 <= run.figure("segm.AP") <= 100 and run.result["seconds"] > 0
    (done,) = (tmp_path / "table-2e").iterdir()
    left = {RESULT, "config.yaml", "history.json", "log.jsonl", "run.log", "tensorboard"}
    assert {file.name for file in done.iterdir()} == left

    # The same again beside a row whose process ends badly.
    monkeypatch.setattr(ablation.sys, "executable", "/bin/false")
    reported.clear()
    result = run_ablation("2e", budget, tmp_path, ["1", "FCN"], SMALL, reported.append)
    assert reported == ["1/2 MLP 2 fc, seed 0", "2/2 FCN, seed 0: done before"]
    assert [finished.label for finished in result.runs] == ["FCN"] and result.runs[0].result == run.result
    assert len(result.failed) == 1 and "MLP 2 fc, seed 0: ended with status 1" in result.failed[0]


def test_a_worker_says_in_a_sentence_what_it_cannot_do(tmp_path):
    result = run_ablation(
        "2e", Budget(steps=1, seeds=1, images=1, size=64), tmp_path, ["FCN"], ["train.weights=nowhere.pth"]
    )
    assert result.runs == [] and "nowhere.pth" in result.failed[0] and "Traceback" not in result.failed[0]
