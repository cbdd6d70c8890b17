"""Whole or not at all: atomic files and folders, content digests, and a cache linked by digest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def _beside(path: Path) -> Path:
    """A name beside `path` that no other process uses."""
    return path.with_name(
        f".{path.name}.{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}.tmp"
    )


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str], *, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary file (or folder) beside `path`, moved to `path` if the block succeeds.

    A reader sees the old file or the new one, never half of one. A folder that stands already is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        if folder:
            temporary.mkdir()
        yield temporary
        if folder:
            _replace_folder(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        _remove(temporary)


def _replace_folder(new: Path, path: Path) -> None:
    if path.exists() or path.is_symlink():
        old = _beside(path)
        os.replace(path, old)
        os.replace(new, path)
        _remove(old)
    else:
        os.replace(new, path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as readable JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n")


def digest(value: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as hex; memory does not grow with the file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class Cache:
    """Finished outputs by content digest, below ``work/cache``; a hit is linked, not made again.

    Entries are folders, put in place by one rename, so that an entry that can be seen is whole.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def entry(self, key: str) -> Path:
        """Folder of `key`, whether or not it stands."""
        return self.root / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether `key` is finished."""
        return self.entry(key).is_dir()

    def put(self, key: str, files: dict[str, str | os.PathLike[str]]) -> None:
        """Keep `files` (name in the entry -> finished file) under `key`; the first copy stays."""
        if self.has(key):
            return
        with contextlib.suppress(OSError), atomic(self.entry(key), folder=True) as temporary:
            for name, source in files.items():
                link_or_copy(Path(source), temporary / name)

    def get(self, key: str, files: dict[str, str | os.PathLike[str]]) -> bool:
        """Place the files of `key` at the given paths; False where it is not (wholly) there."""
        entry = self.entry(key)
        if not all((entry / name).is_file() for name in files):
            return False
        for name, target in files.items():
            with atomic(target) as temporary:
                link_or_copy(entry / name, temporary)
        return True


def link_or_copy(source: Path, target: Path) -> None:
    """Hard link where the file system can, else copy. Linked files are replaced, never written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    # Now, not when it was first made: Snakemake takes an output older than its inputs as out of date.
    os.utime(target)
