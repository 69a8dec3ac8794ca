"""convert takes the images that training reads, and says of the others what validate says."""

import pytest
from image_kinds import READ, REFUSED

from mrcnn_tf.datasets.convert.yolo import read_yolo
from mrcnn_tf.datasets.image_files import inspect_bytes


@pytest.fixture
def yolo(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "data.yaml").write_text("names: [cell]\ntrain: images\n")

    def add(name, data):
        (tmp_path / "images" / f"{name}.png").write_bytes(data)  # whatever it is: its bytes count
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")

    return tmp_path, add


def test_every_kind_is_taken_with_the_size_that_is_seen(yolo):
    folder, add = yolo
    for kind, (data, _) in READ.items():
        add(kind, data)
    dataset = read_yolo(folder)
    sizes = {image.file_name.removeprefix("images/"): (image.height, image.width) for image in dataset.images}
    assert sizes == {f"{kind}.png": pixels.shape[:2] for kind, (_, pixels) in READ.items()} and not dataset.problems


def test_what_training_refuses_is_refused_for_the_same_reason(yolo):
    folder, add = yolo
    for kind, (data, _) in REFUSED.items():
        add(kind, data)
    dataset = read_yolo(folder)
    assert not dataset.images
    found = {problem.file: (problem.kind, problem.message) for problem in dataset.problems}
    for kind, (data, (problem, _)) in REFUSED.items():
        path = str(folder / "images" / f"{kind}.png")
        _, what, remedy = inspect_bytes(data, thorough=True).problem
        assert found[path] == (problem, f"{path} {what} and was left out: {remedy}.")
