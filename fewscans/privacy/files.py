"""Files that only their owner may read: mode 0600 from the first byte, in folders of mode 0700."""

from __future__ import annotations

import contextlib
import os
import secrets
import traceback
from collections.abc import Iterator
from pathlib import Path

from fewscans.errors import UserError


def private_folder(path: str | os.PathLike[str]) -> Path:
    """The folder `path` with mode 0700, made where it is missing.

    Raises
    ------
    UserError
        It belongs to somebody else, who could read what is put there.
    """
    path = Path(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        try:
            path.chmod(0o700)
        except OSError:
            raise UserError(
                f"{path}: others may look into this folder, and it is not yours to change. Remove it."
            ) from None
    return path


def write_private(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` with mode 0600, whole or not at all; its folder has 0700."""
    path = Path(path)
    temporary = _beside(path)
    try:
        _write(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_private_once(path: str | os.PathLike[str], content: bytes) -> bool:
    """The same, and never in the place of a file that stands; whether it was written."""
    path = Path(path)
    temporary = _beside(path)
    try:
        _write(temporary, content)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
            return True
        return False
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return private_folder(path.parent) / f".{path.name}.{secrets.token_hex(8)}.tmp"


def _write(path: Path, content: bytes) -> None:
    # The mode is given to the call that makes the file: there is no moment at which others could open it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


@contextlib.contextmanager
def words_kept(private: str | None, dataset: str, what: str) -> Iterator[None]:
    """Whatever goes wrong inside is written to the private folder in full; what is raised names no file and no patient.

    Without `private` it is raised as it is.
    """
    if private is None:
        yield
        return
    told = Path(private, dataset, f"{what}.txt")
    told.unlink(missing_ok=True)
    try:
        yield
    except UserError as error:
        write_private(told, f"{error}\n".encode("utf-8", "replace"))
        n = f"{len(error.problems)} problems" if len(error.problems) > 1 else "a problem"
        raise UserError(
            f"data set {dataset}: {n}. What is wrong names files or patients, so it stands in {told}."
        ) from None
    except Exception:
        write_private(told, traceback.format_exc().encode("utf-8", "replace"))
        # What an exception says may be what a file says.
        raise RuntimeError(f"data set {dataset}: a fault of fewscans, see {told}") from None
