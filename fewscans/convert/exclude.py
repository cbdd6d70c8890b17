"""Which paths a data set leaves out: by name or by glob. Standard library only.

A list of names may be as long as the table itself, so each path is looked up, and not compared with every name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from fewscans.errors import Problems

_GLOB = re.compile(r"[*?[]")


def is_excluded(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns, paths or globs, meets `path`."""
    names, globs = _taken_apart(tuple(patterns))
    return path in names or any(glob.match(path) for glob in globs)


@lru_cache(maxsize=16)
def _taken_apart(patterns: tuple[str, ...]) -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    """(paths, globs): a glob is a path too, since names may have brackets."""
    globs = (re.compile(fnmatch.translate(one)) for one in patterns if _GLOB.search(one))
    return frozenset(patterns), tuple(globs)


def apply_exclude(
    paths: Sequence[str], patterns: Sequence[str], problems: Problems, place: str
) -> list[str]:
    """`paths` that no pattern (a path, or a glob) meets; a pattern that meets none is a problem.

    One that begins with a path of a folder is about what is in it (`unfold` looks at that), and is none. Neither is a
    glob of volumes, ``*.nii.gz#[234]``, that meets files.
    """
    there = set(paths)
    for pattern in patterns:
        inside = any(pattern[: found.start()] in there for found in re.finditer("[/#]", pattern))
        if inside or pattern in there or _is_of_volumes(pattern, paths):
            continue
        if not _GLOB.search(pattern) or not any(is_excluded(path, [pattern]) for path in paths):
            problems.add(f"{place}.exclude", f"'{pattern}' meets no path. Correct it or remove it.")
    return [path for path in paths if not is_excluded(path, patterns)]


def _is_of_volumes(pattern: str, paths: Sequence[str]) -> bool:
    """Whether what stands before the last '#' of a glob meets a path."""
    before, _, after = pattern.rpartition("#")
    return bool(before and after) and any(is_excluded(path, [before]) for path in paths)
