import json
import os
import subprocess
import sys

import pytest
from sound_dataset import BOXES, Dataset
from spoilers import change, change_image
from typer.testing import CliRunner

from mrcnn_tf.cli import app
from mrcnn_tf.common.errors import UserError


def run(*arguments):
    return CliRunner(env={"COLUMNS": "80", "TERM": "dumb"}).invoke(app, ["validate", *map(str, arguments)])


def test_a_sound_dataset_leaves_with_zero(dataset):
    result = run(*dataset.write())
    assert result.exit_code == 0 and "Nothing wrong was found." in result.stdout
    assert "3 images, 12 annotations (12 as polygons)" in result.stdout and "细胞 12" in result.stdout


def test_warnings_leave_with_zero_and_errors_with_one(dataset):
    change(2, area=40)(dataset)
    result = run(*dataset.write())
    assert result.exit_code == 0 and "[area_mask]" in result.stdout
    change(3, bbox=[70, 5, 9, 9])(dataset)
    result = run(*dataset.write())
    assert result.exit_code == 1 and "[outside_box]" in result.stdout
    order = [result.stdout.index(text) for text in ("Errors:", "[outside_box]", "Warnings:", "[area_mask]")]
    assert order == sorted(order)
    assert max(map(len, result.stdout.splitlines())) <= 80 or str(dataset.json) in result.stdout


def test_json_holds_what_the_table_says_and_the_file_every_record(dataset, tmp_path):
    for number in range(1, 9):
        change(number, area=1)(dataset)
    result = run(*dataset.write(), "--json", "--out", tmp_path / "out")
    printed = json.loads(result.stdout)
    assert printed["counts"] == {"error": 0, "warning": 1, "note": 0}
    (finding,) = printed["datasets"][0]["findings"]
    assert (finding["kind"], finding["count"], finding["of"]) == ("area_mask", 8, 12) and len(finding["examples"]) == 5
    every = json.loads((tmp_path / "out" / "problems.json").read_text())
    assert [problem["record"] for problem in every["problems"]] == list(range(1, 9))
    assert every["datasets"] == printed["datasets"]


def test_fix_writes_copies_of_both_sets(dataset, tmp_path):
    val = Dataset(tmp_path / "v", "train", seed=1)
    change(2, bbox=[70, 5, 9, 9])(dataset)
    change_image(1, width=1)(val)
    result = run(*dataset.write(), "--val", *val.write(), "--fix", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0
    fixed = json.loads(result.stdout)["fixed"]
    assert fixed["changed"] == {"outside_box": 1, "image_size": 1} and fixed["removed"] == {}
    written = ["fixes.jsonl", "problems.json", "train-train.json", "val-train.json"]
    assert sorted(os.listdir(tmp_path / "out")) == written
    mended = json.loads((tmp_path / "out" / "train-train.json").read_text())
    assert mended["annotations"][1]["bbox"] == list(BOXES[1])
    result = run(*dataset.write(), "--fix", "--out", tmp_path / "again")
    assert result.exit_code == 0 and "Left: 0 kinds of errors" in " ".join(result.stdout.split())


def test_errors_that_stay_leave_with_one(dataset, tmp_path):
    dataset.document["categories"] = []
    assert run(*dataset.write(), "--fix", "--out", tmp_path / "out").exit_code == 1


def test_the_config_decides_what_is_too_small(dataset):
    result = run(*dataset.write(), "model.resize.min_size=48", "model.resize.max_size=64", "--json")
    (finding,) = json.loads(result.stdout)["datasets"][0]["findings"]
    assert finding["kind"] == "tiny_object" and finding["severity"] == "warning"
    sizes = "model.rpn.anchor_sizes=[16,32,64,128,256]"
    assert sizes in finding["remedy"] and "model.resize.min_size=96" in finding["remedy"]
    more = ["model.resize.min_size=48", "model.resize.max_size=64", sizes]
    assert json.loads(run(*dataset.write(), *more, "--json").stdout)["datasets"][0]["findings"] == []


def test_several_anchor_sizes_a_map_are_advised_as_such(dataset):
    smaller = "model.rpn.anchor_sizes=[[32,40],[64,80],[128,160],[256,320],[512,640]]"
    result = run(*dataset.write(), "model.resize.min_size=48", "model.resize.max_size=64", smaller, "--json")
    (finding,) = json.loads(result.stdout)["datasets"][0]["findings"]
    assert "model.rpn.anchor_sizes=[[16,20],[32,40],[64,80],[128,160],[256,320]]" in finding["remedy"]


def test_mistakes_are_said_in_a_sentence(dataset, tmp_path):
    result = run(*dataset.write(), "--fix")
    assert isinstance(result.exception, UserError) and "--out FOLDER" in str(result.exception)
    result = run(tmp_path / "none.json", tmp_path)
    assert isinstance(result.exception, UserError) and "none.json" in str(result.exception)


@pytest.mark.parametrize("damaged", [False, True])
def test_tensorflow_is_not_imported(dataset, damaged):
    if damaged:
        path = dataset.images / dataset.records[0]["file_name"]
        path.write_bytes(path.read_bytes()[:-20])
    code = (
        "import sys; sys.argv = ['mrcnn-tf', 'validate', *sys.argv[1:]]\n"
        "from mrcnn_tf.cli import app\n"
        "try: app()\n"
        "except SystemExit as leaving: print(leaving.code, 'tensorflow' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", code, *dataset.write()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{int(damaged)} False"
