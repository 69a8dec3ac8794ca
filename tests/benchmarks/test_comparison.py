"""The comparison's figures, table, chart and command. Nothing is timed."""

import importlib
import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks import cases, comparison
from benchmarks.cases import PACKAGE, Settings
from benchmarks.comparison import Comparison
from benchmarks.display import comparison_table, draw_chart
from mrcnn_tf.cli.benchmark_processes import Result, Times
from mrcnn_tf.common.errors import UserError

ROOT = pathlib.Path(command.__file__).parents[1]

# Of the stages of a detection, a head with the RoI features that are in it among them.
STAGE_SECONDS = {"backbone": 4.0, "fpn": 1.0, "rpn_head": 0.5, "orientation_features": 0.25, "orientation": 1.5}


def times(*seconds):
    return Times(10 * seconds[0], float(np.median(seconds)), min(seconds), list(seconds))


def result(measurement, system, medians, precision="float32", variant=None, facts=None, model=None):
    label = " ".join(filter(None, (variant, precision)))
    case = cases.ComparedCase(measurement, "", "", {}, label, system, precision, variant, model)
    return Result(case, {name: times(value) for name, value in medians.items()}, 2**30, facts or {})


@pytest.fixture
def report():
    """A run with figures that are easy to reckon with: an image takes 10 GFLOP, of which the backbone has 8."""
    counts = {"backbone": 8e9, "fpn": 2e9}
    rates = {"product_float32": 1e9, "product_bfloat16": 4e9}
    figures = Comparison(
        Settings("mask_rcnn_r50_fpn", [], 800, 1088, 3),
        {"processor": "Abacus", "cores": 2, "memory": 2**33, "load": 0.5, "system": "L", "python": "3", "date": "d"},
        {"mrcnn-tf": "1", "torchvision": None},
    )
    figures.results = [
        result("roofline", PACKAGE, dict.fromkeys(rates, 0.5), facts={"operations": rates, "image_operations": counts}),
        result("roi_align", PACKAGE, {"forward_level": 0.01}, variant="custom"),
        result("roi_align", PACKAGE, {"forward_level": 0.1}, variant="gather"),
        result("roi_align", "torchvision", {"forward_level": 0.2}),
        result("inference", PACKAGE, {"detect": 10.0, "detect_full": 12.0}),
        result("inference", PACKAGE, {"detect": 5.0, "detect_full": 6.0}, "bfloat16"),
        result("inference", "torchvision", {"detect_full": 24.0}),
        result("inference", "torchvision", {"detect_full": 18.0}, "bfloat16"),
        result("breakdown", PACKAGE, STAGE_SECONDS | {"whole": 10.0}),
        result("panoptic", PACKAGE, {"detect": 10.0, "detect_semantic": 11.0, "detect_panoptic": 12.5}),
        result("pipeline", PACKAGE, {"image": 0.02}),
        result("replicas", PACKAGE, {"step": 10.0}, variant="1 x CPU"),
        result("replicas", PACKAGE, {"step": 11.0}, variant="2 x CPU"),
        result("checkpoints", PACKAGE, {"steps": 20.0, "steps_saving": 22.0}, facts={"every": 100, "steps": 2}),
    ]
    figures.left_out = ["Model Garden isn't installed (pip install tf-models-official)."]
    return figures


@pytest.fixture
def family(report):
    """The same run with only the family in it."""
    report.results = [
        result("family", system, medians, precision, model=model)
        for model, system, precision, medians in (
            ("Faster R50-FPN", PACKAGE, "float32", {"detect": 2.0}),
            ("Faster R50-FPN", "torchvision", "float32", {"detect": 5.0}),
            ("Faster R50-FPN", PACKAGE, "bfloat16", {"detect": 1.0}),
            ("Mask R50-FPN", PACKAGE, "float32", {"detect": 2.5, "detect_full": 3.0}),
            ("Mask R50-FPN", "torchvision", "float32", {"detect_full": 9.0}),
            ("Mask R50-C4", PACKAGE, "float32", {"detect": 8.0, "detect_full": 8.5}),
            ("Mask R50-C4", "detectron2", "float32", {"detect": 16.0, "detect_full": 17.0}),
        )
    ]
    return report


def test_a_member_of_the_family_is_held_against_the_same_model_and_time(family):
    compared = {(row["title"], row["peer"]): row["over_ours"]["float32"] for row in family.to_json()["compared"]}
    assert compared == {
        ("Faster R50-FPN, image to boxes", "torchvision float32"): 2.5,
        ("Mask R50-FPN, image to boxes, full-size masks", "torchvision float32"): 3.0,
        ("Mask R50-C4, image to boxes, 14x14 masks", "detectron2 float32"): 2.0,
        ("Mask R50-C4, image to boxes, full-size masks", "detectron2 float32"): 2.0,
    }
    alone = next(r for r in family.results if r.case.system == "detectron2")
    family.results = [r for r in family.results if (r.case.system, r.case.model) != (PACKAGE, "Mask R50-C4")]
    assert family.factor(alone, "detect", "float32") is None


def test_the_mask_branch_is_what_masks_add_to_boxes_in_each_precision_that_has_both(family):
    assert family.mask_branch() == {"float32": pytest.approx(0.25)}
    assert family.to_json()["mask_branch"] == family.mask_branch()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison_table(family))
    text = console.export_text()
    assert "Mask branch over Faster R-CNN, float32: +25% (the paper: ~20%" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    heading = rows.index("Mask R50-C4, image to boxes, 14x14 masks")
    assert rows[heading + 2] == "detectron2 float32 16 s 16 s 160 s 2.00 1.00"


def test_a_peer_is_held_against_our_fastest_in_its_own_precision_and_from_float32_also_in_bfloat16(report):
    torch_op, torch_float, torch_half = (r for r in report.results if r.case.system == "torchvision")
    assert report.factor(torch_op, "forward_level", "float32") == pytest.approx(20)
    assert report.factor(torch_op, "forward_level", "bfloat16") is None
    assert report.factor(torch_float, "detect_full", "float32") == pytest.approx(2)
    assert report.factor(torch_float, "detect_full", "bfloat16") == pytest.approx(4)
    assert report.factor(torch_half, "detect_full", "float32") is None
    assert report.factor(torch_half, "detect_full", "bfloat16") == pytest.approx(3)
    assert report.factor(report.results[1], "forward_level", "float32") is None


def test_the_roofline_is_the_counted_operations_at_the_products_rate(report):
    assert report.rates() == {"product_float32": 2e9, "product_bfloat16": 8e9}
    assert report.rooflines()["float32"] == pytest.approx({"operations": 1e10, "bound": 5.0, "fraction": 0.5})
    assert report.rooflines()["bfloat16"] == pytest.approx({"operations": 1e10, "bound": 1.25, "fraction": 0.25})


def test_the_breakdown_adds_up_to_a_detection_with_each_part_counted_once(report):
    parts = report.breakdowns()["float32"]
    assert {name: part["seconds"] for name, part in parts.items()} == pytest.approx(
        {
            "backbone": 4.0,
            "FPN": 1.0,
            "RPN's convolutions": 0.5,
            "orientation features": 0.25,
            "orientation": 1.25,
            "the rest": 3.0,
        }
    )
    assert parts["backbone"]["operations"] == 8e9 and parts["orientation"]["operations"] is None


def test_the_table_names_everything_with_its_figures_and_what_is_missing(report):
    report.failed = ["training: mrcnn_tf float32: it broke"]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(comparison_table(report))
    text = console.export_text()
    rows = {" ".join(line.split()) for line in text.splitlines()}
    assert "torchvision float32 24 s 24 s 240 s 2.00 4.00 1.00" in rows
    assert "mrcnn_tf custom float32 10 ms 10 ms 0.1 s 1.00" in rows
    assert "Semantic head, map and fusion over Mask R-CNN, float32: +25%" in rows
    assert "Input pipeline: 50 images per second" in rows
    assert "A step on two logical devices takes longer than on one: 10.0%" in rows
    assert "Checkpoints' share of the training time: 0.2%" in rows
    assert "Left out: Model Garden isn't installed (pip install tf-models-official)." in rows
    assert "FAILED: training: mrcnn_tf float32: it broke" in rows
    assert "Abacus, 2 cores" in text and "50%" in text


def test_the_chart_has_bars_as_long_as_the_times_in_everyones_colour(report, tmp_path):
    draw_chart(report, tmp_path / "chart.png")
    pixels = np.asarray(Image.open(tmp_path / "chart.png").convert("RGB")).astype(int)
    ours = (abs(pixels - [0x0B, 0x72, 0x85]).max(-1) < 8).sum(1)
    peers = (abs(pixels - [0xF0, 0x8C, 0x00]).max(-1) < 8).sum(1)
    longest = peers.max()
    # The shortest of our bars that isn't only the letters of a label: custom, a twentieth of torchvision's.
    assert longest > 300
    assert ours.max() == pytest.approx(longest / 2, rel=0.1)  # gather's 0.1 s and float32's 12 s are half of the peer's


def test_a_chart_without_peers_has_bars_for_our_own_times(report, tmp_path):
    report.results = [r for r in report.results if r.case.system == PACKAGE]
    draw_chart(report, tmp_path / "chart.png")
    pixels = np.asarray(Image.open(tmp_path / "chart.png").convert("RGB")).astype(int)
    bars = (abs(pixels - [0x0B, 0x72, 0x85]).max(-1) < 8).sum(1)
    assert bars.max() > 600  # the longest of a panel is as long as that


def test_a_chart_of_nothing_that_has_a_time_of_its_own_is_still_a_picture(report, tmp_path):
    report.results = [r for r in report.results if r.case.measurement == "roofline"]
    draw_chart(report, tmp_path / "chart.png")
    assert Image.open(tmp_path / "chart.png").size[0] > 300


def test_the_command_prints_json_alone_and_leaves_json_and_chart(report, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(command, "run_comparison", lambda *arguments: calls.append(arguments) or report)
    ended = CliRunner().invoke(
        command.app, ["compare", "--only", "roi_align, inference", "--height", "64", "--out", str(tmp_path), "--json"]
    )
    assert ended.exit_code == 0, ended.output
    printed = json.loads(ended.stdout)
    assert printed == json.loads((tmp_path / "benchmark.json").read_text())
    assert printed["compared"][0]["over_ours"]["float32"] == pytest.approx(20)
    assert printed["results"][1]["times"]["forward_level"]["median"] == 0.01
    assert printed["images_per_second"] == [50.0]
    assert printed["replicas_price"] == pytest.approx(0.1) and printed["checkpoint_price"] == pytest.approx(0.002)
    assert Image.open(tmp_path / "benchmark.png").format == "PNG"
    settings, only, _ = calls[0]
    assert settings == Settings("mask_rcnn_r50_fpn", [], 64, 1088, 10) and only == ["roi_align", "inference"]


@pytest.mark.parametrize(("system", "status"), [(PACKAGE, 1), ("torchvision", 0)])
def test_a_failure_of_ours_is_told_by_the_exit_status_too(report, tmp_path, monkeypatch, system, status):
    report.failed = [f"roi_align: {system} float32: it broke"]
    monkeypatch.setattr(command, "run_comparison", lambda *arguments: report)
    ended = CliRunner().invoke(command.app, ["compare", "--out", str(tmp_path)])
    assert ended.exit_code == status and "it broke" in ended.stdout


def test_unknown_measurements_and_configs_are_refused_before_anything_is_started(monkeypatch):
    monkeypatch.setattr(comparison, "measure", lambda *_: pytest.fail("started"))
    with pytest.raises(UserError, match="no measurement 'speed': choose of roofline, roi_align"):
        comparison.run_comparison(Settings("mask_rcnn_r50_fpn", [], 64, 64, 1), ["speed"])
    with pytest.raises(UserError, match="no config 'mine'"):
        comparison.run_comparison(Settings("mine", [], 64, 64, 1))


def test_a_mistake_is_one_sentence_and_status_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "ablate", "9"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("benchmarks: There is no table '9': choose one of 2a, 2b")


def test_ours_is_measured_without_the_peers_and_they_are_named(monkeypatch):
    absent = cases.Peer("Nobody", "no_such_package", "pip install no-such-dist", "no.module", ("postprocessing",))
    broken = cases.Peer("Broken", "numpy", "pip install numpy", "no.module", ("postprocessing",))
    other = cases.Peer("Elsewhere", "no_such_package", "pip install it", "no.module", ("family",))
    monkeypatch.setattr(cases, "PEERS", (absent, broken, other))
    figures = comparison.run_comparison(Settings("mask_rcnn_r50_fpn", [], 64, 96, 2), ["postprocessing"])
    assert figures.left_out == ["Nobody isn't installed (pip install no-such-dist)."]
    assert len(figures.failed) == 1 and figures.failed[0].startswith("postprocessing: Broken float32: ")
    assert "no" in figures.failed[0]
    (ours,) = figures.results
    assert ours.case.system == PACKAGE and ours.times.keys() == {"paste", "rle"} and ours.peak_memory > 2**26
    assert all(len(t.runs) == 2 and t.fastest <= t.median for t in ours.times.values())


def test_the_familys_models_are_never_all_in_memory(monkeypatch):
    turns = []

    def measure(turn, repeats, report):
        turns.append(turn)
        return [Result(case, {}, 0, {"native_bfloat16": True}) for case in turn], [], []

    monkeypatch.setattr(cases, "installed_peers", lambda measurements: (cases.PEERS, []))
    monkeypatch.setattr(comparison, "measure", measure)
    comparison.run_comparison(Settings("mask_rcnn_r50_fpn", [], 64, 96, 1), ["family"])
    # The roofline, Faster and Mask R-CNN in each precision, then each other model in each.
    assert [len(turn) for turn in turns] == [1, 4, 4, 2, 2, 2, 2]
    assert all(len({case.arguments["precision"] for case in turn}) == 1 for turn in turns[1:])


def test_the_process_that_measures_never_imports_tensorflow():
    program = (
        "import sys, benchmarks.__main__; print([m for m in ('tensorflow', 'keras', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_measurement_has_a_function_and_roi_align_each_implementation():
    settings = Settings("mask_rcnn_r50_fpn", ["train.seed=1"], 64, 96, 1)
    planned = {name: cases.make_cases(name, settings, cases.PRECISIONS, cases.PEERS) for name in cases.MEASUREMENTS}
    titles = {name: [case.title.removeprefix(f"{name}: ") for case in group] for name, group in planned.items()}
    assert titles["roi_align"] == [
        "mrcnn_tf custom float32", "mrcnn_tf gather float32", "torchvision float32",
    ]  # fmt: skip
    assert titles["training"] == [
        "mrcnn_tf float32", "mrcnn_tf bfloat16",
        "torchvision 7 RoIs float32", "torchvision 128 RoIs float32",
        "torchvision 7 RoIs bfloat16", "torchvision 128 RoIs bfloat16",
    ]  # fmt: skip
    systems = [case.system for case in planned["inference"]]
    assert systems == [PACKAGE] * 2 + ["torchvision"] * 2 + ["Model Garden"] * 2
    assert planned["roi_align"][0].arguments == {"implementation": "custom", "height": 16, "width": 24}
    assert planned["training"][0].arguments["overrides"] == ["train.seed=1"]
    assert titles["family"][-4:] == [
        "mrcnn_tf Mask R50-C4 float32", "detectron2 Mask R50-C4 float32",
        "mrcnn_tf Mask R50-C4 bfloat16", "detectron2 Mask R50-C4 bfloat16",
    ]  # fmt: skip
    peer = planned["family"][-3]
    assert (peer.module, peer.task) == ("benchmarks.peers.detectron2", "family")
    assert peer.arguments == {"model": "Mask R50-C4", "height": 64, "width": 96, "precision": "float32"}
    assert all(cases.FAMILY[c.model].peer == c.system for c in planned["family"] if c.system != PACKAGE)
    backends = [case.arguments for case in planned["evaluation"]]
    assert backends == [{"backend": "pycocotools"}, {"backend": "hotcoco"}]
    for case in (case for group in planned.values() for case in group):
        if case.system == PACKAGE:
            assert callable(getattr(importlib.import_module(case.module), case.task))
        else:
            source = (ROOT / f"{case.module.replace('.', '/')}.py").read_text()
            assert f"\ndef {case.task}(" in source


def test_the_report_says_how_much_faster_the_other_backend_is(report):
    assert report.evaluation_speedup() is None
    for variant, seconds in (("pycocotools", 60.0), ("hotcoco", 4.0)):
        report.results.append(result("evaluation", PACKAGE, {"evaluate": seconds}, variant=variant))
    assert report.to_json()["evaluation_speedup"] == 15
    sentences = [str(part) for part in comparison_table(report).renderables]
    assert "COCO's figures by hotcoco: 15.0 times as fast as pycocotools" in sentences
