"""Stores on the node's own disk: copied there once, shared by the jobs of a user on that node.

Shared file systems are slow where many jobs read at random. With `scratch` in the site's file, a training job reads a
copy of the store from there. ``$TMPDIR`` is usually a folder per job that Slurm removes; in a folder that stays, copies
that nobody has used for two days are removed by the next job. Checkpoints and results never lie there.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
from pathlib import Path

from fewscans.cluster.site import current_site
from fewscans.files import atomic

log = logging.getLogger("fewscans")

UNUSED_S = 2 * 24 * 3600.0
# Left free on the node, so that a full scratch disk spoils nobody's job.
SPARE = 0.05


def near(folder: str | os.PathLike[str]) -> Path:
    """`folder`, or its copy on the node's own disk where the site has one and this is a job.

    Whatever goes wrong with the copy (no room, no folder, no right) costs speed only: then it is `folder` itself.
    """
    folder = Path(folder)
    scratch = _scratch()
    if scratch is None:
        return folder
    try:
        return _copy(folder, scratch)
    except OSError as error:
        log.warning("scratch %s: %s; reading %s instead", scratch, error.strerror or error, folder)
        return folder


def _scratch() -> Path | None:
    site = current_site()
    if site is None or not site.scratch or "SLURM_JOB_ID" not in os.environ:
        return None
    path = os.path.expandvars(site.scratch)
    if "$" in path or not path.startswith("/"):
        log.warning("scratch %s: not set on this node; reading from shared storage", site.scratch)
        return None
    return Path(path)


def _copy(folder: Path, scratch: Path) -> Path:
    root = scratch / f"fewscans-{os.getuid()}"  # a container may not know the name
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = root / _key(folder)
    # One copies, the others of this node wait for it.
    with open(root / f".{copy.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_unused(root, keep=copy)
        if not copy.is_dir():
            size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
            disk = shutil.disk_usage(root)
            if size > disk.free - SPARE * disk.total:
                raise OSError(f"{size / 1e6:.0f} MB do not fit")
            began = time.monotonic()
            with atomic(copy, folder=True) as temporary:
                shutil.copytree(folder, temporary, dirs_exist_ok=True)
            log.info("store copied to %s in %.0f s", copy, time.monotonic() - began)
        os.utime(copy)
    return copy


def _key(folder: Path) -> str:
    """What the copy is called: place, sizes and times of the files, so that a new store is a new copy."""
    text = hashlib.sha256(str(folder.resolve()).encode())
    for path in sorted(folder.iterdir()):
        facts = path.stat()
        text.update(f"{path.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return text.hexdigest()[:16]


def _remove_unused(root: Path, keep: Path) -> None:
    now = time.time()
    for path in root.iterdir():
        if path.name.startswith(".") or path == keep:
            continue
        if now - path.stat().st_mtime > UNUSED_S:
            shutil.rmtree(path, ignore_errors=True)
