"""Which volumes a folder or a file holds, each a scan of its own; no voxels are kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fewscans.config.stages import ConvertParams
from fewscans.convert import Unreadable, count_volumes, in_words, kind_of, paths
from fewscans.convert.decathlon import modalities
from fewscans.convert.exclude import is_excluded
from fewscans.convert.frames import Frame, read_frames
from fewscans.convert.pairs import files_of
from fewscans.convert.series import Volume, find_volumes
from fewscans.convert.sources import Source


def unfold(source: Source, params: ConvertParams) -> list[Source]:
    """The scans that `source` stands for, and what lies beside them; itself where it is one scan.

    A volume of one file is called like this file, one of several files like the folder that was named. Where a file or
    folder has several, they are ``NAME#1``, ``NAME#2``, ... in the order of `find_volumes`, or along the fourth axis of
    a file that is no DICOM. What is no part of a volume is listed by its own path, with the reason.
    """
    if params.read_ndim == 2 or source.file is None or params.root is None:
        return [source]
    folder = source.file.is_dir()
    if not folder and not paths.is_dicom(source.file):
        return _along_axis(source, params)
    found = list(_found(source, Path(params.root), params, folder))
    if source.number:
        found = [_chosen(source, found)]
    found = [
        one if one.volume is None else replace(one, slices=source.slices, mask=source.mask)
        for one in found
    ]
    return found or [_with(source, source.path, Unreadable("a folder with nothing to read"))]


def _found(source: Source, root: Path, params: ConvertParams, folder: bool) -> Iterator[Source]:
    """Everything in the file or folder of `source`, volumes first."""
    assert source.file is not None
    frames: list[Frame] = []
    rest: list[Source] = []
    for path in _files(source.file, deep=params.table is not None) if folder else [source.file]:
        name = path.relative_to(root).as_posix()
        if folder and is_excluded(name, params.exclude):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            problem = Unreadable("leads out of root through a link; copy the file there")
            rest.append(Source(paths.scan_key(params.dataset, name), name, problem=problem))
            continue
        if not paths.is_dicom(path):
            if params.table is not None:  # else it is listed by itself
                key = paths.scan_key(params.dataset, name)
                one = Source(key, name, path, files=files_of(path), beside=not _is_scan(path))
                rest += _along_axis(one, params)
            continue
        try:
            with in_words(path, "DICOM"):
                frames += read_frames(path)
        except Unreadable as error:
            beside = folder and error.status == "set-aside"
            key = paths.scan_key(params.dataset, name)
            rest.append(Source(key, name, path, problem=error, beside=beside))
    # A class's own folder is always numbered: its class is told by that.
    always = params.table is None and "/" not in source.path
    base = paths.split_number(source.path)[0] if source.number else source.path
    for name, volume in _names(find_volumes(frames), base, root, always):
        files = tuple(dict.fromkeys(frame.file for frame in volume.frames))
        if is_excluded(name, params.exclude):
            continue
        lone = len(volume.frames) == 1
        if lone and not folder:
            volume = replace(
                volume, problem="one slice; name the folder of its series in the table"
            )
        key = paths.scan_key(params.dataset, name)
        yield Source(key, name, files[0], files=files, volume=volume, beside=folder and lone)
    yield from rest


def _along_axis(source: Source, params: ConvertParams) -> list[Source]:
    """The volumes of a file along an axis of its own, or the one that a number names; itself where it has one."""
    assert source.file is not None
    try:
        count = count_volumes(source.file)
    except Unreadable as error:
        return [replace(source, problem=error)]
    if source.number > count:
        there = paths.count(range(count), "volume")
        return [replace(source, problem=Unreadable(f"no such volume; it holds {there}"))]
    if count == 1:
        return [replace(source, number=0)]
    names = modalities(params.table) if params.table is not None else ()
    made = []
    for number in [source.number] if source.number else range(1, count + 1):
        path = source.path if source.number else f"{source.path}#{number}"
        if is_excluded(path, params.exclude):
            continue
        note = f"modality {names[number - 1]}" if len(names) == count else ""
        key = paths.scan_key(params.dataset, path)
        made.append(replace(source, scan=key, path=path, number=number, note=note))
    return made


def _files(folder: Path, deep: bool) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if deep and not f.startswith("."))
        yield from (Path(here) / name for name in paths.kept_files(files))


def _is_scan(path: Path) -> bool:
    """Whether a file looks like an image of a kind that is read."""
    try:
        kind_of(path)
    except (Unreadable, OSError):
        return False
    return True


def _names(
    volumes: list[Volume], base: str, root: Path, always: bool
) -> Iterator[tuple[str, Volume]]:
    """(name, volume): that of its one file, or `base`, with a number where several have it."""
    called = []
    for volume in volumes:
        files = {frame.file for frame in volume.frames}
        called.append(base if len(files) > 1 else files.pop().relative_to(root).as_posix())
    total, seen = Counter(called), Counter[str]()
    for name, volume in zip(called, volumes, strict=True):
        seen[name] += 1
        numbered = total[name] > 1 or (always and name == base)
        yield (f"{name}#{seen[name]}" if numbered else name), volume


def _chosen(source: Source, found: list[Source]) -> Source:
    """The one volume that a number names, under the path by which it was named."""
    volumes = [one for one in found if one.volume is not None and not one.beside]
    base = paths.split_number(source.path)[0]
    for one in volumes:
        if one.path == source.path or (source.number == 1 and one.path == base):
            return Source(source.scan, source.path, one.file, files=one.files, volume=one.volume)
    there = paths.count(volumes, "volume")
    return _with(source, source.path, Unreadable(f"no such volume; it holds {there}"))


def _with(source: Source, path: str, problem: Unreadable) -> Source:
    return Source(source.scan, path, source.file, problem=problem)
