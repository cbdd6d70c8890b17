"""What unfinished and killed jobs leave below ``work/``: training state with its lease, half-written files."""

from __future__ import annotations

import collections
import json
import os
import pickle
import re
import shutil
import socket
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewscans.runrecord import is_alive, process_space

# As `fewscans.files.atomic` names them: .NAME.HOST-PID-TIME.tmp
HALF = re.compile(r"^\..+-(?P<pid>\d+)-\d+\.tmp$")


@dataclass(frozen=True)
class Training:
    """State of a training that has not ended."""

    digest: str
    step: int | None
    """Steps done when it was saved; None where nothing is saved yet."""
    saved_s: float | None
    """Seconds since then."""
    owner: dict[str, Any] | None
    """What its lease says; None where nobody holds it."""
    beat_s: float | None
    """Seconds since the owner's last sign of life."""

    @property
    def owner_is_gone(self) -> bool:
        """Whether the owner is known to have died: only one of this host can be asked."""
        if self.owner is None:
            return False
        here = f"{socket.gethostname()} {process_space()}".strip()
        if self.owner.get("host") != here or "pid" not in self.owner:
            return False
        return not is_alive(int(self.owner["pid"]), self.owner.get("process_start"))


def trainings(work: str | os.PathLike[str]) -> Iterator[Training]:
    """Every unfinished training below ``work/checkpoints``."""
    for folder in sorted((Path(work) / "checkpoints").glob("*/")):
        state, lease = folder / "state.pt", folder / "lease.json"
        try:
            owner = json.loads(lease.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            owner = None
        yield Training(folder.name, step_of(state), _age_s(state), owner, _age_s(lease))


def _age_s(path: Path) -> float | None:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return None


class _Nothing:
    """Stands for every object that is not wanted; takes what unpickling does to it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setitem__(self, *_: Any) -> None:
        pass

    def __setstate__(self, *_: Any) -> None:
        pass

    def append(self, *_: Any) -> None:
        """Of lists."""


class _Numbers(pickle.Unpickler):
    """Plain values only, so that neither torch nor any code of the file is loaded."""

    def find_class(self, module: str, name: str) -> Any:
        return collections.OrderedDict if name == "OrderedDict" else _Nothing

    def persistent_load(self, _: Any) -> Any:
        return _Nothing()


def step_of(state: str | os.PathLike[str]) -> int | None:
    """Steps done, as a checkpoint says; None where it is not there or says nothing."""
    try:
        with zipfile.ZipFile(state) as archive:
            name = next(one for one in archive.namelist() if one.endswith("data.pkl"))
            with archive.open(name) as handle:
                step = _Numbers(handle).load().get("step")
        return step if isinstance(step, int) else None
    except Exception:  # whatever it is, it is no checkpoint that can be read
        return None


def half_written(work: str | os.PathLike[str]) -> list[Path]:
    """Temporary files and folders of processes that are gone; of other hosts those that a day has passed over."""
    found = []
    for folder, folders, files in os.walk(work):
        for name in [*folders, *files]:
            match = HALF.match(name)
            if match is None:
                continue
            path = Path(folder, name)
            # Both names may have dots in them.
            here = f".{socket.gethostname()}-{match['pid']}-" in name
            age = _age_s(path) or 0.0
            if (here and not is_alive(int(match["pid"]), None)) or (not here and age > 86400):
                found.append(path)
        folders[:] = [name for name in folders if not HALF.match(name)]
    return sorted(found)


def remove(path: Path) -> None:
    """A file or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_of(folder: str | os.PathLike[str]) -> tuple[int, int]:
    """(bytes, files) below a folder; files with several names count once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                facts = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            if (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                total += facts.st_size
    return total, len(seen)
