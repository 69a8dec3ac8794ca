"""The configs of the paper's tables: what their headers say, and that their settings are the paper's."""

import dataclasses
import functools
import json
import pathlib
import re
import shlex

import pytest
import typer
from PIL import Image

import mrcnn_tf
from benchmarks.ablation_tables import TABLES
from mrcnn_tf import cli
from mrcnn_tf.config.load import CONFIG_FOLDERS, list_config_names, load_config
from mrcnn_tf.config.settings import CONVENTIONS, Conventions
from mrcnn_tf.data.pipeline import coco_dataset

PAPER = [name for name in list_config_names() if name.startswith("paper_")]
DOCUMENT = pathlib.Path(mrcnn_tf.__file__).parent.parent / "docs" / "paper_tables.md"
ROWS = {
    "2a": ("table2a_r50_c4", "table2a_r101_c4", "table2a_r50_fpn", "table2a_r101_fpn"),
    "2b": ("table2b_softmax", "table2b_sigmoid"),
    "agnostic": ("class_agnostic", "r50_c4"),
    "2c": ("table2c_roipool_max", "table2c_roiwarp_max", "table2c_roiwarp_ave", "table2c_roialign_max",
           "table2c_roialign_ave"),
    "2d": ("table2d_roipool", "table2d_roialign"),
    "2e": ("table2e_mlp2", "table2e_mlp3", "table2e_fcn"),
    "5": ("table5_faster_rcnn", "table5_mask_only", "table5_keypoint_only", "table5_keypoint_mask"),
    "6": ("table6_roipool", "table6_roialign"),
}  # fmt: skip
ROI_LAYER = {"model.roi_layer.kind", "model.roi_layer.aggregate"}


# Read once for all tests, which leave them as they are.
config_of = functools.cache(load_config)


def header(name):
    """The comment at the top of a config: its lines, without the marks."""
    file = next(folder / f"{name}.yaml" for folder in CONFIG_FOLDERS if (folder / f"{name}.yaml").is_file())
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.removeprefix("#").strip() for line in lines[:end]]


def part(name, start, end):
    """A header's text from the line that starts with `start` to the one that starts with `end`."""
    return re.search(rf"(?m)^{start}(.*?)^{end}", "\n".join(header(name)), re.DOTALL)[1]


def figures(text):
    return [float(number) for number in re.findall(r"(?<![\d.])\d+\.\d+", text)]


def command(name):
    """The words of the command in a header, which may go on over lines that end in a backslash."""
    lines = header(name)
    start = next(number for number, line in enumerate(lines) if line.startswith("Command:"))
    words = lines[start].removeprefix("Command:")
    while words.endswith("\\"):
        start += 1
        words = words.removesuffix("\\") + lines[start]
    return shlex.split(words)


def parsed(words):
    """The arguments of a command as the command line reads them."""
    program, subcommand, *arguments = words
    assert program == "mrcnn-tf"
    return typer.main.get_command(cli.app).commands[subcommand].make_context(subcommand, arguments).params


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """A working directory laid out like COCO: an image with a person whose nose is labelled, and one where it isn't."""
    person = {"id": 1, "name": "person", "keypoints": ["nose"], "skeleton": []}
    images = [{"id": number, "file_name": f"{number}.png", "width": 40, "height": 30} for number in (1, 2)]
    shape = {"category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
    shape["segmentation"] = [[5, 5, 25, 5, 25, 25, 5, 25]]
    noses = {1: [9, 9, 2], 2: [0, 0, 0]}
    people = [{"id": number, "image_id": number, "keypoints": nose, **shape} for number, nose in noses.items()]
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        for image in images:
            Image.new("RGB", (40, 30)).save(tmp_path / split / image["file_name"])
        for kind in ("instances", "person_keypoints"):
            file = tmp_path / "annotations" / f"{kind}_{split}.json"
            file.write_text(json.dumps({"images": images, "annotations": people, "categories": [person]}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))


def test_there_are_configs_for_all_tables():
    assert {name.split("_")[1] for name in PAPER if "_table" in name} == {
        "table1", "table2a", "table2b", "table2c", "table2d", "table2e", "table3", "table4", "table5", "table6",
    }  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_a_header_has_all_its_parts(name):
    lines, train = header(name), config_of(name).train
    table = re.match(r"paper_table(\d[a-e]?)_", name)
    if table:
        assert lines[0].startswith(f"Table {table[1]} of the paper, row ")
    else:
        assert re.match(r"Section 4\.\d of the paper, |(Mask|Keypoint) R-CNN .* of the paper", lines[0])
    assert figures(part(name, "Paper, ", "Expected on COCO val2017"))
    assert "not rerun here" in part(name, "Expected on COCO val2017", "Today's systems, ")
    today = part(name, "Today's systems, ", "Batch and schedule: ")
    assert "none published" in today or (figures(today) and re.search(r"\b[13]x\b", today))
    schedule = part(name, "Batch and schedule: ", "Time and memory: ").replace("\n", " ")
    assert f"{train.images_per_batch} images a step" in schedule
    for steps in (train.steps, *train.decay_steps):
        assert f"{steps:,}" in schedule
    assert re.search(r"none|no training time|paper|detectron2", part(name, "Time and memory: ", "Command: "))


@pytest.mark.parametrize("name", PAPER)
def test_the_command_in_a_header_is_accepted(name, coco):
    arguments = parsed(command(name))
    assert arguments["config"] == name
    config = load_config(name, arguments["overrides"])
    assert [config.data.train.images, config.data.val.images] == ["train2017", "val2017"]
    assert config.model.categories[0].name == "person"
    persons = "person_keypoints" in config.data.train.annotations
    assert persons == bool(config.data.train.min_keypoints)
    assert bool(config.train.weights) != bool(arguments["weights"])  # a frozen backbone needs either


@pytest.mark.parametrize("row", ROWS["5"])
def test_all_rows_of_table_5_train_on_the_images_with_keypoints(row, coco):
    arguments = parsed(command(f"paper_{row}"))
    config = load_config(arguments["config"], [*arguments["overrides"], "train.images_per_batch=1"])
    assert coco_dataset(config.data.train, training=True).cardinality() == 1  # of two images


@pytest.mark.parametrize("name", [name for name in list_config_names() if name not in PAPER])
def test_the_commands_of_the_other_configs_are_accepted_too(name):
    arguments = parsed(command(name))
    assert arguments.get("config") in (None, name)


@pytest.mark.parametrize("table", ROWS)
def test_the_figures_are_those_of_the_ablation_tables(table):
    assert len(TABLES[table].rows) == len(ROWS[table])
    for row, name in zip(TABLES[table].rows, ROWS[table], strict=True):
        expected = [figure for figure in row.paper if figure is not None]
        found = figures(part(f"paper_{name}", "Paper, ", "Expected"))
        assert found[: len(expected)] == expected, name


def test_the_document_has_every_config_with_its_paper_figure():
    listed = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and cells[2].startswith("`paper_"):
            listed[cells[2].strip("`")] = float(cells[3])
    assert sorted(listed) == [name for name in PAPER if not re.match(r"paper_r50_(fpn|c4)", name)]
    for name, figure in listed.items():
        assert figure in (figures(part(name, "Paper, ", "Expected"))[0], 195.0), name


@pytest.mark.parametrize("name", PAPER)
def test_settings_are_those_of_section_3(name):
    config = config_of(name)
    model, train = config.model, config.train
    keypoints = bool(re.search(r"table[456]|keypoint", name))
    schedule = (90_000, [60_000, 80_000]) if keypoints else (160_000, [120_000])
    assert (train.steps, train.decay_steps, train.decay_factor) == (*schedule, 0.1)
    assert (train.images_per_batch, train.learning_rate, train.learning_rate_batch) == (16, 0.02, 16)
    assert (train.momentum, train.weight_decay) == (0.9, 1e-4)
    assert model.resize.min_size == 800
    assert model.conventions == Conventions(**CONVENTIONS["paper"])
    assert (model.rois.positive_fraction, model.rois.foreground_iou) == (0.25, 0.5)
    assert (model.rois.batch_per_image, model.rpn.post_nms_test) == (
        (64, 300) if model.features == "C4" else (512, 1000)
    )
    assert (len(model.rpn.anchor_sizes), len(model.rpn.aspect_ratios)) == (5, 3)
    assert model.detections.max_per_image == 100 and model.detections.nms_iou == 0.5
    assert (model.backbone.groups, model.backbone.width_per_group) == ((64, 4) if "x101" in name else (1, 64))
    assert model.backbone.stride_in_1x1 == ("x101" not in name)
    assert model.backbone.depth == (101 if "101" in name else 50)
    scales = [640, 672, 704, 736, 768, 800] if keypoints else []
    assert (config.data.train.augment.min_sizes, config.data.train.augment.horizontal_flip) == (scales, 0.5)
    assert not config.data.val.augment.min_sizes and config.data.val.min_keypoints == 0


@pytest.mark.parametrize(
    "name, other, keys",
    [
        ("table2a_r101_c4", "table2a_r50_c4", {"model.backbone.depth"}),
        ("table2a_r101_fpn", "table2a_r50_fpn", {"model.backbone.depth"}),
        ("table2b_softmax", "table2b_sigmoid", {"model.mask_head.activation"}),
        ("class_agnostic", "table2b_sigmoid", {"model.mask_head.class_agnostic"}),
        ("table2c_roipool_max", "table2c_roialign_ave", ROI_LAYER),
        ("table2c_roiwarp_max", "table2c_roialign_ave", ROI_LAYER),
        ("table2c_roiwarp_ave", "table2c_roialign_ave", {"model.roi_layer.kind"}),
        ("table2c_roialign_max", "table2c_roialign_ave", {"model.roi_layer.aggregate"}),
        ("table2d_roipool", "table2d_roialign", ROI_LAYER),
        ("table2e_mlp2", "table2e_fcn", {"model.mask_head.fcs", "model.mask_head.channels"}),
        ("table2e_mlp3", "table2e_mlp2", {"model.mask_head.fcs"}),
        ("fpn_roipool", "table2a_r50_fpn", ROI_LAYER),
        ("table3_faster_rcnn_r101_fpn", "table3_mask_rcnn_r101_fpn", {"model.mask_head"}),
        ("table5_faster_rcnn", "table5_mask_only", {"model.mask_head"}),
        ("table5_keypoint_only", "table5_keypoint_mask", {"model.mask_head"}),
        ("table5_mask_only", "table5_keypoint_mask", {"model.keypoint_head"}),
        ("table6_roipool", "table6_roialign", ROI_LAYER),
        ("timing_r101_fpn", "table1_r101_fpn", set()),
        ("table4_keypoint_mask", "table5_keypoint_mask", set()),
    ],
)
def test_a_row_differs_from_another_by_what_its_table_varies(name, other, keys):
    rows = [dataclasses.asdict(config_of(f"paper_{each}")) for each in (name, other)]
    filled_in = {f"data.{split}.{kind}" for split in ("train", "val") for kind in ("masks", "keypoints")}
    assert set(_differences(*rows)) - filled_in == keys


def _differences(tree, other, path=""):
    for key in tree:
        where, pair = f"{path}.{key}".lstrip("."), (tree[key], other[key])
        if all(isinstance(value, dict) for value in pair):
            yield from _differences(*pair, where)
        elif pair[0] != pair[1]:
            yield where
