"""Training state that survives a kill.

Snakemake deletes declared outputs of a job that it starts again, so state is no output: it lies under
``work/checkpoints/DIGEST/`` and is removed by its owner once the output stands (`fewscans.lease` says who that is).
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from fewscans.files import atomic, digest

log = logging.getLogger("fewscans")


class Checkpoint:
    """One file of training state, replaced whole.

    Parameters
    ----------
    folder
        Of this training alone.
    where
        What rounds differently: kind of device and its model, version of torch, threads, ranks. It is kept with the
        state.
    elsewhere
        Whether state that was made elsewhere is gone on with. If not, it is laid aside for a start there, and state
        laid aside here is taken up: a job that goes back and forth between two kinds of machine comes to its end.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        where: dict[str, Any] | None = None,
        *,
        elsewhere: bool = False,
    ) -> None:
        self.folder, self.where, self.elsewhere = Path(folder), where, elsewhere
        self.path, self.sound = self.folder / "state.pt", self.folder / "sound.pt"
        self.places = [where]
        """Where the training was, in order; more than one: it went on elsewhere."""

    def save(self, state: dict[str, Any]) -> None:
        """Write `state` (tensors, numbers, text, lists and dicts of them)."""
        with atomic(self.path) as temporary:
            torch.save({**state, "places": self.places}, temporary)

    def keep(self, state: dict[str, Any]) -> None:
        """Write `state` beside: what a training that fails later goes on from."""
        with atomic(self.sound) as temporary:
            torch.save({**state, "places": self.places}, temporary)

    def kept(self) -> dict[str, Any] | None:
        """What was kept last, in the course of places that the present state has had; else None."""
        state = self._read(self.sound)
        if state is None or state.pop("places") != self.places:
            return None
        return state

    def begin_anew(self) -> None:
        """What comes owes nothing to another place, nor to what was kept."""
        self.places = [self.where]
        self.sound.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """What was saved last, on the CPU; None where nothing was, or it cannot be read (then begin anew)."""
        self.places = [self.where]
        state = self._read(self.path)
        if state is None:
            return self.load() if self._take_up() else None
        places = state.pop("places", [None])
        if places[-1] == self.where:
            self.places = places
        elif self.elsewhere:
            self.places = [*places, self.where]
            log.warning("going on elsewhere: %s", self._differences(places[-1]))
        else:
            log.warning(
                "there is a checkpoint of another machine (%s); it is laid aside, since other machines round "
                "differently. Set `compute.resume_elsewhere: true` to go on from it.",
                self._differences(places[-1]),
            )
            os.replace(self.path, self._aside(places[-1]))
            return self.load()
        return state

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (
            RuntimeError,
            EOFError,
            OSError,
            ValueError,
            KeyError,
            pickle.UnpicklingError,
        ) as error:
            log.warning("%s cannot be read (%s); training begins anew", path, type(error).__name__)
            return None

    def _take_up(self) -> bool:
        """Put the state that was laid aside for this kind of machine in its place."""
        try:
            os.replace(self._aside(self.where), self.path)
        except FileNotFoundError:
            return False
        return True

    def _aside(self, where: dict[str, Any] | None) -> Path:
        return self.folder / f"aside-{digest(where)}.pt"

    def _differences(self, other: dict[str, Any] | None) -> str:
        mine, theirs = self.where or {}, other or {}
        return ", ".join(
            f"{key} {theirs.get(key, 'unknown')}, here {mine.get(key, 'unknown')}"
            for key in sorted({*mine, *theirs})
            if mine.get(key) != theirs.get(key)
        )

    def remove(self) -> None:
        """Remove the state and its folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
