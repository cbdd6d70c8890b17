"""Paths of scans as a table gives them: untrusted text. Standard library only."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from fewscans.convert import sniff
from fewscans.convert.kinds import ENDINGS, endings
from fewscans.convert.pairs import header_name
from fewscans.convert.slices import split_slice
from fewscans.errors import Problems

# Of each kind of problem so many are named, the rest counted.
N_SHOWN = 20
# Entries looked through for a file that lies elsewhere than the table says.
_N_SEARCHED = 50_000
_LITTER = {"thumbs.db", "desktop.ini"}
# Bytes of a file that tell whether it is DICOM.
_HEAD = 160


_ENDS = endings(*ENDINGS)
_NUMBERED = re.compile(r"(.+)#([1-9][0-9]*)")


def split_number(path: str) -> tuple[str, int]:
    """``p01#2`` -> ``p01``, 2: the second volume of a folder or file, or frame of a file; ``p01`` -> ``p01``, 0."""
    found = _NUMBERED.fullmatch(path)
    return (found[1], int(found[2])) if found else (path, 0)


def named_file(path: str, root: Path) -> tuple[Path, int]:
    """(file or folder that `path` names below `root`, number after its '#'); the path as it stands goes first.

    Of the path of a slice: those of its volume.
    """
    volume = split_slice(path)[0]
    if volume != path and not (root / path).exists():
        path = volume
    base, number = split_number(path)
    if number and not (root / path).exists():
        return root / base, number
    return root / path, 0


def row_of(path: str, rows: Container[str]) -> str | None:
    """Which of the paths of a table names the scan `path`: itself, its volume, file or folder, one above; or None.

    A row that names a folder is about every scan in it.
    """
    while path and path not in rows:
        path = _above(path)
    return path or None


def _above(path: str) -> str:
    """Volume of a slice, folder or file of a numbered volume, folder of a file; "" above all."""
    volume, _, number = split_slice(path)
    base, also = split_number(path)
    return volume if number else base if also else posixpath.dirname(path)


def scan_key(dataset: str, path: str) -> str:
    """Key of a scan: 16 hex digits over data set and relative path."""
    # surrogateescape: a file name need not be valid UTF-8.
    return hashlib.sha256(f"{dataset}/{path}".encode("utf-8", "surrogateescape")).hexdigest()[:16]


def chunk_of(scan: str, chunks: int) -> int:
    """Chunk in which `scan` is converted: by its hash, so that another scan more moves no other."""
    return int(scan, 16) % chunks


def shown(items: Sequence[str], indent: str = "\n      ") -> str:
    """The first 20 of `items`, one a line, and how many more there are."""
    more = [f"... and {len(items) - N_SHOWN} more"] if len(items) > N_SHOWN else []
    return "".join(indent + item for item in [*map(repr, items[:N_SHOWN]), *more])


def normal_path(path: str) -> str:
    """`path` without ``.``, ``..`` and doubled slashes.

    Raises
    ------
    ValueError
        It is empty, absolute, or leaves the folder that it is relative to; the message says which.
    """
    if not path.strip():
        raise ValueError("is empty")
    if "\0" in path:
        raise ValueError("holds a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in path):
        raise ValueError("is not valid UTF-8; rename the file")  # how Python shows such bytes
    if path.startswith(("/", "\\\\", "~/")) or re.match(r"^[A-Za-z]:[\\/]", path):
        raise ValueError("is absolute; write it relative to root")
    normal = posixpath.normpath(path)
    if normal == ".." or normal.startswith("../"):
        raise ValueError("leaves root by '..'")
    if not normal.strip():
        raise ValueError("is empty")
    if normal == ".":
        raise ValueError("is root itself")
    return normal


def normal_paths(paths: Iterable[str], problems: Problems, place: str) -> list[str | None]:
    """Normal form of each path, None where it is refused; refused and doubled ones are problems."""
    normal: list[str | None] = []
    first: dict[str, int] = {}
    refused: dict[str, list[str]] = {}
    doubled: list[str] = []
    for row, path in enumerate(paths, start=1):
        try:
            known = normal_path(path)
        except ValueError as error:
            refused.setdefault(str(error), []).append(f"{path} (row {row})")
            normal.append(None)
            continue
        if known in first:
            doubled.append(f"{known} (rows {first[known]} and {row})")
        else:
            first[known] = row
        normal.append(known)
    for reason, items in refused.items():
        problems.add(place, f"{count(items, 'path')} {reason}:{shown(items)}")
    if doubled:
        problems.add(
            place,
            f"{count(doubled, 'path')} listed twice; a scan has one row:{shown(doubled)}",
        )
    return normal


def normal_masks(
    cells: Iterable[tuple[str, str]], problems: Problems, place: str
) -> list[tuple[str, str]]:
    """Normal forms of (path of a scan, path of its mask), where both are given; masks that are refused are problems."""
    found, refused = [], []
    for path, mask in cells:
        try:
            known = normal_path(path)
        except ValueError:  # told with the paths of scans
            continue
        if mask:
            try:
                found.append((known, normal_path(mask)))
            except ValueError as error:
                refused.append(f"{mask} ({error})")
    if refused:
        problems.add(place, f"{count(refused, 'mask')} cannot be meant:{shown(refused)}")
    return found


def check_files(
    paths: Sequence[str], root: Path, problems: Problems, place: str, folders: bool = False
) -> None:
    """Every path is a file inside `root`, links followed; all that are not become problems.

    With `folders` it may be one of these too.
    """
    real_root = os.path.realpath(root)
    real_folders: dict[str, str] = {}
    missing, outside = [], []
    for path in paths:
        full = os.path.join(root, path)
        if not os.path.isfile(full):
            full = str(named_file(path, root)[0])
        if not os.path.isfile(full) and not (folders and os.path.isdir(full)):
            missing.append(path)
            continue
        folder = os.path.dirname(full)
        if folder not in real_folders:  # one look per folder: thousands of files lie in few of them
            real_folders[folder] = os.path.realpath(folder)
        real = os.path.realpath(full) if os.path.islink(full) else real_folders[folder]
        if os.path.commonpath([real_root, real]) != real_root:
            outside.append(path)
    if outside:
        problems.add(
            place,
            f"{count(outside, 'path')} lead out of root through a link. Copy the files there:"
            f"{shown(outside)}",
        )
    if missing:
        problems.add(place, _missing_message(missing, len(paths), root))


def check_apart(paths: Sequence[str], problems: Problems, place: str) -> None:
    """No path lies in a folder that is named as well, nor is one volume of it; those that do become a problem."""
    named = set(paths)
    twice = [path for path in paths if row_of(_above(path), named)]
    if twice:
        problems.add(
            place,
            f"{count(twice, 'path')} named by the row of a folder too. Keep the one or the other:"
            f"{shown(twice)}",
        )


def _missing_message(missing: list[str], n_paths: int, root: Path) -> str:
    if len(missing) == n_paths:
        head = f"none of the {n_paths} files is there, below {root}."
    else:
        head = f"{len(missing)} of {n_paths} files are not there, below {root}."
    hint = _elsewhere(missing[0], root)
    return f"{head}{hint} Correct the table or root, or use exclude.{shown(missing)}"


def _elsewhere(path: str, root: Path) -> str:
    """Where a file of this name lies, if it does: root may be a folder too high or too low."""
    if "\\" in path and os.path.isfile(os.path.join(root, path.replace("\\", "/"))):
        return " Write '/' in place of '\\'."
    parts = path.split("/")
    for n in range(1, len(parts)):
        if os.path.isfile(os.path.join(root, *parts[n:])):
            tail, extra = "/".join(parts[n:]), "/".join(parts[:n])
            return f" '{tail}' is there: leave '{extra}/' out of the paths, or set root higher up."
    name = parts[-1]
    searched = 0
    for folder, folders, files in os.walk(root):
        folders.sort()
        found = [f for f in files if f == name] or [f for f in files if f.lower() == name.lower()]
        if found:
            return f" Did you mean '{(Path(folder) / found[0]).relative_to(root).as_posix()}'?"
        searched += len(files) + len(folders)
        if searched > _N_SEARCHED:
            break
    return ""


def walk_classes(root: Path, ndim: int = 2) -> list[str]:
    """Files below `root`, sorted, for a folder per class; hidden ones and litter are left out.

    Files that lie in `root` itself count only where it has no folders (an unlabelled pool). Where `ndim` is 3, a folder
    stands for the DICOM files in it: which volumes they make is found when they are read.
    """
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        here = Path(folder)
        if here == root and folders:
            continue
        scans = [here / name for name in kept_files(files)]
        if ndim == 3 and here != root:
            slices = {path for path in scans if is_dicom(path)}
            scans = [path for path in scans if path not in slices] + [here] * bool(slices)
        found += [path.relative_to(root).as_posix() for path in scans]
    return sorted(found)


def kept_files(names: Iterable[str]) -> list[str]:
    """`names`, of one folder, without hidden files, litter and voxels whose header is a file beside them, sorted."""
    kept = {f for f in names if not f.startswith(".") and f.lower() not in _LITTER}
    return sorted(f for f in kept if header_name(f, kept) is None)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its first bytes; a file that cannot be opened is none."""
    try:
        with open(path, "rb") as handle:
            return sniff(handle.read(_HEAD)) == "DICOM"
    except OSError:
        return False


def class_of(path: str) -> str:
    """Class of a path where there is a folder per class: the first folder, or empty.

    A volume whose slices lie in the class's folder itself is called ``CLASS#1``; one of a file without a folder is
    called ``FILE.nii.gz#1``, and has no class.
    """
    first, slash, _ = path.partition("/")
    base, number = split_number(path)
    return first if slash else base if number and not base.lower().endswith(_ENDS) else ""


def count(items: Sequence[object], word: str) -> str:
    """``3 paths``, ``1 path``."""
    return f"{len(items)} {word}{'s' if len(items) != 1 else ''}"
