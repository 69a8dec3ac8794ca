"""Arrays of a large json, element by element."""

import json

import pytest

from mrcnn_tf.common import json_stream
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_stream import stream_arrays, stream_members

DOCUMENT = {
    "info": {"images": [1], "note": 'a "quoted" ] bracket'},
    "images": [{"id": 1, "name": "träumerei 日本 \U0001f600"}, {"id": 2, "deep": [[1, 2], {"x": []}]}],
    "licenses": [[], {}],
    "numbers": 12345,
    "annotations": [],
    "categories": [{"id": 5, "name": "b"}, {"id": 2, "name": "a"}],
}


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 22])
@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"ensure_ascii": False, "separators": (",", ":")}])
def test_elements_arrive_whole_wherever_the_chunks_end(tmp_path, monkeypatch, chunk, layout):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(DOCUMENT, **layout), encoding="utf-8")
    found = list(stream_arrays(path, ("images", "annotations", "categories")))
    expected = [("images", record) for record in DOCUMENT["images"]]
    assert found == expected + [("categories", record) for record in DOCUMENT["categories"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "isn't valid json"),
        ("no json at all", "isn't valid json"),
        ('{"images": [{"id": 1}, {"id"', "isn't valid json"),
        ('{"images": [1 2]}', "Expecting ',' or ']'"),
        ('{"images": [1, ]}', "Trailing comma"),
        ("{5: [1]}", "name in double quotes"),
        ('{"images": [], } ', "Trailing comma"),
        ('{"images": []} x', "Extra data"),
        ("[1, 2]", "holds no json object"),
        ('{"images": {"1": 2}}', '"images" in .* is a dict'),
        ('{"annotations": []}', 'has no "images"'),
    ],
)
def test_what_is_wrong_with_the_file_is_said(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        list(stream_arrays(path, ("images",)))
    assert str(path) in str(error.value)


def test_bytes_that_are_not_text(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"images": ["\xff\xfe"]}')
    with pytest.raises(UserError, match="UTF-8"):
        list(stream_arrays(path, ("images",)))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_members_of_objects_and_arrays(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(DOCUMENT), encoding="utf-8")
    assert list(stream_members(path)) == list(DOCUMENT.items())
    # The members of an object come one by one, as the elements of an array do; a number stays one.
    opened = list(stream_members(path, ("info", "images", "numbers")))
    expected = [("info", value) for value in DOCUMENT["info"].values()]
    expected += [("images", record) for record in DOCUMENT["images"]]
    assert opened == expected + list(DOCUMENT.items())[2:]
    path.write_text(json.dumps(DOCUMENT["images"]))
    assert list(stream_members(path)) == [(None, record) for record in DOCUMENT["images"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [("3", "no json object"), ('{"a":\n{"b": 1}', r"isn't valid json .*line 2"), ('{"a": 1} 2', "Extra data")],
)
def test_what_is_wrong_with_members_is_said(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        list(stream_members(path, ("a",)))
