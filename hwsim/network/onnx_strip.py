"""Leave the weights of an ONNX file on disk: the protocol buffer is copied without the contents of large tensors.

Walks the wire format (protobuf encoding guide) down to the initializers of the main graph: ModelProto.graph is field 7,
GraphProto.initializer 5; of TensorProto raw_data is 9, the typed lists 4, 5, 7, 10, 11, data_location 14, external_data 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from hwsim.errors import HwsimError

Buffer: TypeAlias = "bytes | memoryview"
MAX_FIELDS = 500_000
KEEP_BYTES = 1 << 16
STRIPPED = "stripped"  # key under which a removed raw_data's length is noted
_DATA = frozenset({4, 5, 7, 9, 10, 11})


def strip_weights(content: Buffer) -> bytes:
    """Return the model without tensor contents above 64 KiB; what is no protocol buffer comes back unchanged.

    A removed ``raw_data`` leaves its length as an ``external_data`` entry, so that it can still be compared with the
    stated shape. Raises HwsimError for a graph of more than 500,000 fields.
    """
    view = memoryview(content)
    try:
        return b"".join(_message(view, 7, _graph))
    except (IndexError, ValueError) as error:
        if isinstance(error, HwsimError):
            raise
        return bytes(view)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError


def _fields(view: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, start, payload start, end) of every field."""
    at = count = 0
    end = len(view)
    while at < end:
        count += 1
        if count > MAX_FIELDS:
            raise HwsimError(f"more than {MAX_FIELDS} entries in one part of the file")
        start = at
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        payload = at
        if kind == 0:
            _, at = _varint(view, at)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        elif kind == 2:
            size, payload = _varint(view, at)
            at = payload + size
        else:
            raise ValueError
        if at > end:
            raise ValueError
        yield number, kind, start, payload, at


def _prefixed(number: int, body: bytes) -> bytes:
    size, head = len(body), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + body


def _message(view: memoryview, wanted: int, inner: object) -> Iterator[Buffer]:
    """The fields of a message; large ones numbered ``wanted`` pass through ``inner``."""
    kept = 0
    for number, kind, start, payload, end in _fields(view):
        if number == wanted and kind == 2 and end - payload > KEEP_BYTES:
            yield view[kept:start]
            yield _prefixed(number, inner(view[payload:end]))  # type: ignore[operator]
            kept = end
    yield view[kept:]


def _graph(view: memoryview) -> bytes:
    return b"".join(_message(view, 5, _tensor))


def _tensor(view: memoryview) -> bytes:
    parts: list[Buffer] = []
    removed = 0
    for number, kind, start, payload, end in _fields(view):
        if number in _DATA and kind == 2 and end - payload > KEEP_BYTES:
            removed = end - payload if number == 9 else removed
        else:
            parts.append(view[start:end])
    if removed:
        note = _prefixed(1, STRIPPED.encode()) + _prefixed(2, str(removed).encode())
        parts += [_prefixed(13, note), b"\x70\x01"]  # data_location = EXTERNAL
    return b"".join(parts)
