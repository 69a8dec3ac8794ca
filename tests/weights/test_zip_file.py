import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.weights.stored_tensor import WeightFileError
from mrcnn_tf.weights.torch_file import read_zip_entries


def write(path, entries, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, contents in entries:
            archive.writestr(name, contents)
    return bytearray(path.read_bytes())


@pytest.fixture
def archive(tmp_path):
    return write(tmp_path / "a.zip", [("one", b"first"), ("two/ü", b""), ("three", bytes(1000))])


def test_entries_are_views_of_the_file(archive):
    entries = read_zip_entries(memoryview(archive))
    assert {name: bytes(view) for name, view in entries.items()} == {
        "one": b"first",
        "two/ü": b"",
        "three": bytes(1000),
    }
    assert all(view.obj is archive for view in entries.values())


def test_a_comment_at_the_end_is_skipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.comment = b"x" * 500
        archive.writestr("one", b"first")
    assert bytes(read_zip_entries(memoryview((tmp_path / "a.zip").read_bytes()))["one"]) == b"first"


def test_sizes_beyond_32_bits_come_from_the_zip64_field(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, archive.open("one", "w", force_zip64=True) as entry:
        entry.write(b"first")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"PK\x01\x02")
    extra = struct.pack("<2H3Q", 1, 24, 5, 5, 0)
    struct.pack_into("<2L", data, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", data, at + 30, len(extra))
    struct.pack_into("<L", data, at + 42, 0xFFFFFFFF)
    data[at + 49 : at + 49] = extra
    assert bytes(read_zip_entries(memoryview(data))["one"]) == b"first"


def test_compressed_entries_are_refused(tmp_path):
    bomb = write(tmp_path / "a.zip", [("big", bytes(10_000_000))], compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        with pytest.raises(WeightFileError, match="'big' is compressed"):
            read_zip_entries(memoryview(bomb))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_refused(tmp_path):
    with pytest.raises(WeightFileError, match="two entries named 'one'"):
        read_zip_entries(memoryview(write(tmp_path / "a.zip", [("one", b"1"), ("one", b"2")])))


@pytest.mark.parametrize(
    ("offset", "value", "sentence"),
    [
        (20, struct.pack("<2L", 10**9, 10**9), "beyond the file's end"),
        (20, struct.pack("<2L", 5, 10**9), "compressed"),
        (8, struct.pack("<H", 1), "encrypted"),
        (42, struct.pack("<L", 10**9), "points outside"),
        (42, struct.pack("<L", 1), "damaged"),
        (46, b"ONE", "disagree"),
    ],
)
def test_a_directory_that_lies_is_refused(archive, offset, value, sentence):
    at = archive.index(b"PK\x01\x02") + offset
    archive[at : at + len(value)] = value
    with pytest.raises(WeightFileError, match=sentence):
        read_zip_entries(memoryview(archive))


def test_an_absurd_number_of_entries_is_refused(archive):
    end = archive.rindex(b"PK\x05\x06")
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 0, 0, 0, 0, 2**40, 2**40, 0, 0)
    archive[end:end] = end64 + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    with pytest.raises(WeightFileError, match="claims to hold"):
        read_zip_entries(memoryview(archive))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_zip_cut_short_is_refused(tmp_path_factory, data):
    whole = write(tmp_path_factory.mktemp("zip") / "a.zip", [("one", b"first"), ("two", bytes(50))])
    with pytest.raises(WeightFileError):
        read_zip_entries(memoryview(whole[: data.draw(st.integers(0, len(whole) - 1))]))
