"""The archive at the end of a .tflite file, read by zipfile itself, and files without one."""

import json
import zipfile

import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.interpreter import append_metadata, read_metadata

FLATBUFFER = b"\x1c\0\0\0TFL3" + bytes(range(256)) * 4
DOCUMENT = {"categories": [{"class": 1, "name": "Möwe"}], "input_size": [320, 320]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(append_metadata(FLATBUFFER, DOCUMENT, "Möwe\n"))
    return path


def test_any_zip_reader_finds_the_labels(file):
    assert file.read_bytes().startswith(FLATBUFFER)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["labels.txt", "mrcnn_tf.json"]
        assert archive.read("labels.txt").decode() == "Möwe\n"
        assert json.loads(archive.read("mrcnn_tf.json")) == DOCUMENT
        # TFLite's own readers map such files into memory as they are.
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert read_metadata(file) == DOCUMENT


def test_the_same_facts_give_the_same_bytes(file):
    assert append_metadata(FLATBUFFER, DOCUMENT, "Möwe\n") == file.read_bytes()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "isn't a TFLite file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "isn't a TFLite file"),
        (FLATBUFFER, "doesn't end in the labels"),
        (append_metadata(FLATBUFFER, DOCUMENT, "")[:-30], "doesn't end in the labels"),
        (append_metadata(FLATBUFFER, [1], ""), "doesn't end in the labels"),
        (append_metadata(FLATBUFFER, DOCUMENT, "").replace(b"mrcnn_tf.json", b"elsewise.json"), "doesn't end in the"),
        (append_metadata(FLATBUFFER, DOCUMENT, "").replace(b'"class"', b'"glass"'), "doesn't end in the labels"),
    ],
    ids=["empty", "a picture", "of others", "cut off", "a list", "another archive", "a changed byte"],
)
def test_other_files_are_refused_in_one_sentence(file, content, words):
    file.write_bytes(content)
    with pytest.raises(UserError, match=words) as raised:
        read_metadata(file)
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "no.tflite", tmp_path):
        with pytest.raises(UserError, match="can't be read"):
            read_metadata(path)
