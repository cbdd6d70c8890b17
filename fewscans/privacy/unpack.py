"""All that a file of ours can hold, unpacked: members of archives, columns of tables, streams, pictures in pages."""

from __future__ import annotations

import base64
import binascii
import html
import io
import re
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_DEEPEST = 4
_DATA_URI = re.compile(rb"base64,([A-Za-z0-9+/=]{16,})")
_PDF_STREAM = re.compile(rb"stream\r?\n(.*?)endstream", re.DOTALL)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def contents(path: Path, called: str) -> Iterator[tuple[str, bytes]]:
    """(place, bytes) of a file as it stands and of all that is packed in it, texts without escapes too."""
    yield from _opened(called, path.read_bytes(), 0)


def _opened(place: str, data: bytes, depth: int) -> Iterator[tuple[str, bytes]]:
    yield place, data
    if b"\0" in data:  # UTF-16 and UTF-32, of which numpy's text is
        yield f"{place} (wide text)", data.replace(b"\0", b"")
    if plain := _unescaped(data):
        yield f"{place} (escapes)", plain
    if depth < _DEEPEST:
        for name, inner in _members(data):
            yield from _opened(f"{place}: {name}", inner, depth + 1)


def _unescaped(data: bytes) -> bytes:
    """Text with escapes of JSON, HTML and URLs written out; nothing where there are none."""
    if not any(mark in data for mark in (b"\\u", b"&", b"%")):
        return b""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return b""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    plain = urllib.parse.unquote(html.unescape(plain))
    return plain.encode("utf-8", "surrogatepass") if plain != text else b""


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    # What is damaged has been looked at as it stands.
    with suppress(zlib.error, zipfile.BadZipFile, OSError, ValueError):
        if data.startswith(b"\x1f\x8b"):
            yield "gzip", zlib.decompressobj(31).decompress(data)
        elif data.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for name in archive.namelist():
                    yield name, archive.read(name)
        elif data.startswith(b"PAR1"):
            yield from _parquet(data)
        elif data.startswith(b"\x89PNG"):
            yield from _png(data)
        elif data.startswith(b"%PDF"):
            for number, found in enumerate(_PDF_STREAM.finditer(data)):
                with suppress(zlib.error):
                    yield f"stream {number}", zlib.decompress(found[1])
        else:
            yield from _pictures(data)


def _pictures(data: bytes) -> Iterator[tuple[str, bytes]]:
    for number, found in enumerate(_DATA_URI.finditer(data)):
        with suppress(binascii.Error):
            yield f"picture {number}", base64.b64decode(found[1])


def _parquet(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Metadata, and the text of each column."""
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    for key, value in (table.schema.metadata or {}).items():
        yield f"metadata {key.decode('utf-8', 'replace')}", value
    yield "columns", "\n".join(table.column_names).encode()
    for name in table.column_names:
        texts = list(_texts(table[name].to_pylist()))
        if texts:
            yield f"column {name}", b"\n".join(texts)


def _texts(values: Any) -> Iterator[bytes]:
    for value in values:
        if isinstance(value, str):
            yield value.encode("utf-8", "surrogatepass")
        elif isinstance(value, bytes):
            yield value
        elif isinstance(value, list):
            yield from _texts(value)
        elif isinstance(value, dict):
            yield from _texts([*value, *value.values()])
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(value).encode()


def _png(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Packed chunks; pixels too (PNG 1.2, chapters 3 and 4)."""
    at, pixels = 8, b""
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        at += size + 12
        if name == b"IDAT":
            pixels += body
        elif (
            name in (b"zTXt", b"iTXt", b"iCCP")
            and (start := body.find(b"\x78", body.find(b"\0"))) > 0
        ):
            with suppress(zlib.error):
                yield name.decode(), zlib.decompressobj().decompress(body[start:])
    yield "pixels", zlib.decompressobj().decompress(pixels)
