import pathlib

import h5py
import numpy as np
import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.weight_file import read_weight_file

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoints"
VALUE = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_keras_2_files_give_each_variables_full_path():
    expected = np.load(GOLDEN / "expected.npz")
    checkpoint = read_weight_file(GOLDEN / "keras_2.h5")
    assert checkpoint.container == "hdf5"
    names = ["conv1/conv1/kernel:0", "conv1/conv1/bias:0", "bn_conv1/bn_conv1/gamma:0"]
    assert sorted(checkpoint.tensors) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(checkpoint.tensors[name], expected[f"keras_2/{name}"])
        assert not checkpoint.tensors[name].flags.writeable


def test_a_whole_saved_model_gives_its_weights_alone(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["model_weights/conv/conv/kernel:0"] = VALUE
        file["optimizer_weights/step"] = 3
    tensors = read_weight_file(tmp_path / "x.h5").tensors
    assert list(tensors) == ["conv/conv/kernel:0"]


def test_element_types(tmp_path):
    values = {"half": VALUE.astype("f2"), "double": VALUE.astype("f8"), "step": np.int64(3), "none": VALUE[:0]}
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        for name, value in values.items():
            file[name] = value
    tensors = read_weight_file(tmp_path / "x.h5").tensors
    assert {name: tensor.dtype.name for name, tensor in tensors.items()} == {
        "half": "float32",
        "double": "float32",
        "step": "int64",
        "none": "float32",
    }
    for name, value in values.items():
        np.testing.assert_array_equal(tensors[name], value)


def soft_link(file):
    file["a"] = h5py.SoftLink("/b")


def external_link(file):
    file["a"] = h5py.ExternalLink("other.h5", "/b")


def external_storage(file):
    secret = pathlib.Path(file.filename).with_name("secret")
    secret.write_bytes(bytes(24))
    file.create_dataset("a", (6,), "f4", external=[(str(secret), 0, 24)])


def virtual(file):
    layout = h5py.VirtualLayout((6,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "b", (6,))
    file.create_virtual_dataset("a", layout)


def compressed(file):
    file.create_dataset("a", (10**7,), "f4", data=np.zeros(10**7, "f4"), compression="gzip")


def never_written(file):
    file.create_dataset("a", (10**12,), "f4")


def chunks_never_written(file):
    file.create_dataset("a", (10**12,), "f4", chunks=(100,))


def cycle(file):
    file["group/again"] = file.create_group("group")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (soft_link, "'a' is a link to somewhere else"),
        (external_link, "'a' is a link to somewhere else"),
        (external_storage, "'a' isn't stored in one plain piece"),
        (virtual, "'a' isn't stored in one plain piece"),
        (compressed, "'a' isn't stored in one plain piece; rewrite the file with `h5repack"),
        (chunks_never_written, "'a' isn't stored in one plain piece"),
        (never_written, "'a' has no contents"),
        (cycle, "contain each other"),
        (lambda file: file.create_dataset("a", data=VALUE.astype(">f4")), "'a' has the type '>f4'"),
        (lambda file: file.create_dataset("a", data=["text"]), "'a' has the type"),
        (lambda file: file.create_dataset("a", data=np.zeros(2, "f4,i4")), "'a' has the type"),
        (lambda file: file.create_group("a"), "holds no tensors"),
    ],
)
def test_anything_but_plain_weights_is_refused(tmp_path, make, sentence):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        make(file)
    with pytest.raises(UserError, match=f"x.h5 can't be imported: .*{sentence}"):
        read_weight_file(tmp_path / "x.h5")


def test_a_file_cut_short_is_refused(tmp_path):
    whole = (GOLDEN / "keras_2.h5").read_bytes()
    for end in range(8, len(whole), 97):
        (tmp_path / "x.h5").write_bytes(whole[:end])
        with pytest.raises(UserError):
            read_weight_file(tmp_path / "x.h5")
