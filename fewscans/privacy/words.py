"""Reasons and notes in our own words: what a file or a decoder put into them is left out."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from fewscans import convert

_INNER = re.compile(r"\s*\(([^()]*)\)")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
# Longer runs of digits may be a date or an id.
_DIGITS = 6
_GONE = "..."


@cache
def vocabulary() -> frozenset[str]:
    """Every word of the text that `fewscans.convert` may say, from its source; docstrings left out."""
    words: set[str] = set()
    for path in sorted(Path(convert.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.update(_TOKEN.findall(node.value) if id(node) not in said else ())
    return frozenset(words)


def own_words(text: str) -> str:
    """`text` without what is not ours: brackets that hold a foreign word go whole, other foreign words become "...".

    Numbers of up to 6 digits stay: sizes and counts.
    """
    kept, before = text, None
    while kept != before:
        before = kept
        kept = _INNER.sub(lambda found: _held(found), kept)
    kept = kept.replace("\x01", "(").replace("\x02", ")")
    return _TOKEN.sub(lambda found: found[0] if _ours(found[0]) else _GONE, kept)


def _held(found: re.Match[str]) -> str:
    """Brackets with our words, marked as seen; nothing where there are others."""
    if all(_ours(token) for token in _TOKEN.findall(found[1])):
        return found[0].replace("(", "\x01").replace(")", "\x02")
    return ""


def _ours(token: str) -> bool:
    return len(token) <= _DIGITS if token.isdigit() else token in vocabulary()
