"""Whether files hold what must not leave: every name of the private tables, looked for in everything, unpacked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from fewscans.privacy.dates import day_of
from fewscans.privacy.header import SHORTEST
from fewscans.privacy.table import TABLE, read
from fewscans.privacy.unpack import contents
from fewscans.privacy.words import vocabulary

_TOKEN = re.compile(rb"[0-9A-Za-z\x80-\xff]+")
_EDGE = re.compile(rb"[0-9A-Za-z\x80-\xff]")
# A number or a word of so few characters is found everywhere.
_SHORTEST_NUMBER, _SHORTEST_WORD = 6, 5


@dataclass(frozen=True)
class Leak:
    """A name where it must not be: in which file (and member of it), and of which column of the private table."""

    place: str
    kind: str


def is_sought(text: str) -> bool:
    """Whether a name can be told from other text: long enough, and no word of ours."""
    text = text.strip()
    if text.isdigit():
        return len(text) >= _SHORTEST_NUMBER
    if text.isalpha():
        return len(text) >= _SHORTEST_WORD and text not in vocabulary()
    return len(text) >= SHORTEST and any(character.isalnum() for character in text)


def names_of(private: Iterable[Path], allowed: Iterable[str] = ()) -> dict[bytes, str]:
    """Name -> kind, of everything in the private tables that can be told from other text.

    `allowed`: words that may be shared though they are part of a name there (classes, data sets).
    """
    found: dict[str, str] = {}
    for path in private:
        table = read(path, TABLE)
        for text, kind in _names(table):
            found.setdefault(text.strip(), kind)
    may = set(allowed)
    return {
        text.encode("utf-8", "surrogatepass"): kind
        for text, kind in found.items()
        if is_sought(text) and text not in may
    }


def _names(table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for path in {*table["path"], *table["source"]}:
        yield path, "path"
        for part in PurePosixPath(path).parts:
            # A plain word may be the folder of a class; a name with digits or marks is none.
            if not part.isalpha():
                yield part, "path"
                yield PurePosixPath(part).stem, "path"
    for patient in set(table["patient"]):
        yield patient, "patient"
    for site in set(table["site"]):
        yield site, "site"
    for text in set(table["date"].fillna("")):
        yield from ((form, "date") for form in _dates(text))
    for text in {one for row in table["identifiers"] for one in row}:
        # Text of one plain word may be any word; what belongs to a person has marks, digits or more words.
        if not text.isalpha():
            yield text, "identifier"
        if "^" in text:  # a person's name (PS3.5 6.2): its parts too
            yield from ((part, "identifier") for part in text.split("^"))


def _dates(text: str) -> Iterator[str]:
    day = day_of(text)
    if day is not None:
        yield from (day.strftime("%Y%m%d"), day.isoformat())


def search(paths: Iterable[Path], names: dict[bytes, str], below: Path | None = None) -> list[Leak]:
    """Where files, their names `below` a folder, or what is packed in them hold one of `names`.

    Each place and kind once. No place says the name that was found: it may be put into a log.
    """
    sought = _by_word(names)
    found: dict[Leak, None] = {}
    for path in paths:
        called = path.relative_to(below).as_posix() if below is not None else path.name
        kinds = _in(called.encode("utf-8", "surrogateescape"), sought)
        found |= dict.fromkeys(Leak("the name of a file", kind) for kind in kinds)
        for place, data in contents(path, "a file that is called so" if kinds else called):
            found |= dict.fromkeys(Leak(place, kind) for kind in _in(data, sought))
    return list(found)


# Its words, the name, its kind.
_Sought = tuple[frozenset[bytes], bytes, str]


def _by_word(names: dict[bytes, str]) -> dict[bytes, list[_Sought]]:
    """Each of `names` under its longest word: only where that stands the name is looked for."""
    made: dict[bytes, list[_Sought]] = {}
    for name, kind in names.items():
        words = frozenset(_TOKEN.findall(name))
        longest = max(words, key=lambda word: (len(word), word), default=b"")
        made.setdefault(longest, []).append((words, name, kind))
    return made


def _in(data: bytes, sought: dict[bytes, list[_Sought]]) -> list[str]:
    """Kinds of the names that are in `data`, sorted."""
    there = {b"", *_TOKEN.findall(data)}
    return sorted(
        {
            kind
            for word in there & sought.keys()
            for words, name, kind in sought[word]
            if words <= there and _stands(name, data)  # a name can only be where all its words are
        }
    )


def _stands(name: bytes, data: bytes) -> bool:
    """Whether `name` is in `data` and no part of a longer word."""
    at = data.find(name)
    while at >= 0:
        before, after = data[max(0, at - 1) : at], data[at + len(name) : at + len(name) + 1]
        if not (_EDGE.match(before) and _EDGE.match(name[:1])) and not (
            _EDGE.match(after) and _EDGE.match(name[-1:])
        ):
            return True
        at = data.find(name, at + 1)
    return False
