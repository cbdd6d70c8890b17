"""What kind of file system a folder is on, and whether other machines are likely to see it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Sharing = Literal["shared", "own", "passing", "unknown"]

# Kinds as /proc/mounts names them.
SHARED = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.ceph", "cephfs", "glusterfs"),
    *("fuse.glusterfs", "orangefs", "pvfs2", "panfs", "wekafs", "afs", "cifs", "smb3", "9p"),
    *("fuse.juicefs", "fuse.sshfs", "fhgfs", "daos", "virtiofs"),
}
OWN = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "apfs", "vfat"}
PASSING = {"tmpfs", "ramfs", "overlay", "aufs", "fuse-overlayfs", "squashfs"}


def kind_of(path: str | os.PathLike[str], mounts: str | None = None) -> str:
    """Kind of the file system that holds `path` (or the nearest folder above that exists); empty where not known."""
    place = Path(path).resolve()
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    best, kind = -1, ""
    for line in mounts.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        # Blanks in names are written as octal numbers.
        point = parts[1].replace("\\040", " ")
        inside = point == "/" or place == Path(point) or Path(point) in place.parents
        # A later mount covers an earlier one at the same place.
        if inside and len(point) >= best:
            best, kind = len(point), parts[2]
    return kind


def sharing(kind: str) -> Sharing:
    """Whether other machines are likely to see files on a file system of this kind."""
    if kind in SHARED or kind.startswith(("nfs", "lustre", "fuse.beegfs")):
        return "shared"
    if kind in PASSING:
        return "passing"
    return "own" if kind in OWN else "unknown"


def warning(path: str | os.PathLike[str]) -> str | None:
    """A line about a folder that nodes of a cluster are not likely to share; None where they may be."""
    kind = kind_of(path)
    found = sharing(kind)
    if found == "own":
        return f"{path}: on {kind}, a disk of this machine; nodes may not see it, unless it is exported to them"
    if found == "passing":
        return f"{path}: on {kind}, which only this machine sees and which may not outlive it"
    return None
