"""Archives in the place of their content, as each command that reads datasets meets them."""

import bz2
import gzip
import tarfile
import zipfile

import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.datasets.read_coco import load_index


@pytest.fixture
def content(tmp_path):
    file = tmp_path / "größe 1.json"
    file.write_text('{"images": []}' * 50, encoding="utf-8")
    return file


def as_zip(content, path):
    with zipfile.ZipFile(path, "w") as file:
        file.write(content)


def as_tar(content, path):
    with tarfile.open(path, "w") as file:
        file.add(content, "a.json")


def as_gzip(content, path):
    path.write_bytes(gzip.compress(content.read_bytes()))


def as_bzip2(content, path):
    path.write_bytes(bz2.compress(content.read_bytes()))


@pytest.mark.parametrize(("pack", "kind"), [(as_zip, "zip"), (as_tar, "tar"), (as_gzip, "gzip"), (as_bzip2, "bzip2")])
def test_archives_are_named(content, tmp_path, pack, kind):
    packed = tmp_path / "train photos"  # the name needn't say what it is
    pack(content, packed)
    with pytest.raises(UserError, match=f"train photos is a {kind} archive: unpack it and give the json"):
        refuse_archive(packed, "the json")


def test_half_a_zip(content, tmp_path):
    packed = tmp_path / "half.zip"
    as_zip(content, packed)
    packed.write_bytes(packed.read_bytes()[:200])
    with pytest.raises(UserError, match="half.zip is only the beginning of a zip: copy or download it again"):
        refuse_archive(packed, "the json")


def test_what_is_none(content, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    for path in (content, tmp_path, tmp_path / "empty", tmp_path / "nowhere"):
        refuse_archive(path, "something else")


@pytest.mark.parametrize("field", ["annotations", "images"])
def test_training_refuses_them(content, tmp_path, field):
    packed = tmp_path / "photos.zip"
    as_zip(content, packed)
    given = {"annotations": str(content), "images": str(tmp_path)} | {field: str(packed)}
    with pytest.raises(UserError, match=rf"photos.zip is a zip archive.* as data\.\*\.{field}"):
        load_index(DataConfig(**given))
