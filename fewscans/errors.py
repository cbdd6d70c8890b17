"""Errors that a user can act on: what is wrong, where, and the way out, all problems at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what a user gave; printed without traceback, exit code 2.

    Parameters
    ----------
    title
        What was being read, e.g. ``config/config.yaml``.
    problems
        Lines ``(place, message)``; the message says what to do.
    """

    def __init__(self, title: str, problems: Iterable[tuple[str, str]] = ()) -> None:
        self.title = title
        self.problems = list(problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        if not self.problems:
            return self.title
        n = len(self.problems)
        width = min(40, max(len(place) for place, _ in self.problems))
        lines = [f"  {place:<{width}}  {message}" for place, message in self.problems]
        return "\n".join([f"{self.title}: {n} problem{'s' if n > 1 else ''}", *lines])


class Problems:
    """Collects problems so that a user sees all of them, not the first."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.lines: list[tuple[str, str]] = []

    def add(self, place: str, message: str) -> None:
        """Note one problem at `place` (a key, a file, a row)."""
        if (place, message) not in self.lines:
            self.lines.append((place, message))

    def raise_if_any(self) -> None:
        """Raise `UserError` with everything noted so far; return where nothing was."""
        if self.lines:
            raise UserError(self.title, self.lines)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'simsiam'? Known: mae, simclr, ...``, the first part where one is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"{hint} Known: {shown}" if names else hint
