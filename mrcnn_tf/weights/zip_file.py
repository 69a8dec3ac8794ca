"""The entries of a zip file that was stored without compression, as views of its bytes."""

import struct

from mrcnn_tf.weights.refusal import Refusal

MAX_ENTRIES = 100_000
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_IN_EXTRA = 0xFFFFFFFF
_LONGEST_COMMENT = 0xFFFF


def stored_entries(data):
    """Name to memoryview, for every entry of the zip file in `data` (memoryview).

    Raises:
        Refusal: it is truncated or damaged, or an entry is compressed, encrypted, a duplicate or outside the file.
    """
    count, position = _directory(data)
    if count > MAX_ENTRIES:
        raise Refusal(f"it claims to hold {count} entries")
    entries = {}
    for _ in range(count):
        fields = _read(_ENTRY, data, position, b"PK\x01\x02")
        flags, method, packed, size = fields[3], fields[4], fields[8], fields[9]
        name_size, extra_size, comment_size, start = fields[10], fields[11], fields[12], fields[16]
        position += _ENTRY.size
        raw_name = bytes(data[position : position + name_size])
        extra = bytes(data[position + name_size : position + name_size + extra_size])
        position += name_size + extra_size + comment_size
        name = raw_name.decode("utf-8", "backslashreplace")
        size, packed, start = _large(extra, size, packed, start)
        if method != 0 or flags & 1 or size != packed:
            raise Refusal(f"its entry {name[:80]!r} is compressed or encrypted, so write it anew with torch.save")
        if name in entries:
            raise Refusal(f"it has two entries named {name[:80]!r}")
        entries[name] = _contents(data, start, size, raw_name)
    return entries


def _directory(data):
    """The number of entries and where the directory begins."""
    tail_start = max(0, len(data) - _END.size - _LONGEST_COMMENT)
    found = bytes(data[tail_start:]).rfind(b"PK\x05\x06")
    if found < 0:
        raise Refusal("it's a zip file without its end, so download or copy it again")
    end = tail_start + found
    fields = _read(_END, data, end, b"PK\x05\x06")
    if end < _END64_LOCATOR.size or bytes(data[end - _END64_LOCATOR.size :][:4]) != b"PK\x06\x07":
        return fields[4], fields[6]
    locator = _read(_END64_LOCATOR, data, end - _END64_LOCATOR.size, b"PK\x06\x07")
    fields = _read(_END64, data, locator[2], b"PK\x06\x06")
    return fields[7], fields[9]


def _large(extra, *values):
    """Size, packed size and offset, those beyond 32 bits from the entry's zip64 field."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{min(size, len(extra) - 4) // 8}Q", extra, 4))
            return [next(numbers, value) if value == _IN_EXTRA else value for value in values]
        extra = extra[4 + size :]
    return values


def _contents(data, start, size, raw_name):
    fields = _read(_LOCAL, data, start, b"PK\x03\x04")
    name_at = start + _LOCAL.size
    begin = name_at + fields[9] + fields[10]
    if bytes(data[name_at : name_at + fields[9]]) != raw_name:
        raise Refusal("its zip directory and entries disagree")
    if begin + size > len(data):
        raise Refusal("it has an entry that goes on beyond the file's end, so download or copy it again")
    return data[begin : begin + size]


def _read(structure, data, position, signature):
    if position + structure.size > len(data):
        raise Refusal("its zip directory points outside the file, so download or copy it again")
    fields = structure.unpack_from(data, position)
    if fields[0] != signature:
        raise Refusal("its zip directory is damaged, so download or copy it again")
    return fields
