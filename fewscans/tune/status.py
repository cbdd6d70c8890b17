"""A search seen from outside, running or finished: read from its journal and folders, nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewscans.progress import duration

WORDS = ("done", "pruned", "failed", "running", "waiting")
JOURNAL, RESULT, JOB = "journal.log", "result.json", "job.json"


@dataclass
class Status:
    """One search."""

    folder: Path
    name: str
    trials: int
    parallel: int
    counts: dict[str, int] = field(default_factory=dict)
    """done, pruned, failed, running, waiting (proposed), left (not proposed yet)."""
    best: float | None = None
    best_trial: int | None = None
    values: dict[str, Any] = field(default_factory=dict)
    seconds_per_trial: float | None = None
    finished: bool = False

    @property
    def left_s(self) -> float | None:
        """Seconds to the end, by what trials took so far and rounds of `parallel`."""
        if self.finished:
            return 0.0
        if self.seconds_per_trial is None:
            return None
        open_trials = sum(self.counts[key] for key in ("running", "waiting", "left"))
        return -(-open_trials // self.parallel) * self.seconds_per_trial


def trial_folder(search: Path, number: int) -> Path:
    """Folder of a trial."""
    return search / "trials" / str(number)


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a trial has written at its end."""
    return _read(folder / RESULT)


def read_job(folder: Path) -> dict[str, Any]:
    """What is known of a trial's job; empty where it was never started."""
    return _read(folder / JOB) or {}


def find(root: Path) -> Iterator[Path]:
    """Folders of the searches below `root`: of each encoder, recipe, data set and fold the newest."""
    newest: dict[Path, Path] = {}
    for path in sorted(root.rglob(JOURNAL)):
        home = path.parent.parent
        if home not in newest or path.stat().st_mtime > (newest[home] / JOURNAL).stat().st_mtime:
            newest[home] = path.parent
    yield from newest.values()


def read(folder: Path) -> Status:
    """Status of the search in `folder`."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = str(folder / JOURNAL)
    storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    about, trials = study.user_attrs, study.get_trials(deepcopy=False)
    total = int(about.get("trials", len(trials)))
    states = [_state(folder, trial) for trial in trials[:total]]
    counts = {word: states.count(word) for word in WORDS}
    counts["left"] = total - len(states)
    results = [read_result(trial_folder(folder, t.number)) or {} for t in trials[:total]]
    seconds = [r["seconds"] for r in results if r.get("seconds")]
    values = {n: r["value"] for n, r in enumerate(results) if r.get("state") == "complete"}
    best = min(values, key=lambda n: (values[n], n)) if values else None
    return Status(
        folder,
        name=" ".join(str(about.get(k, "?")) for k in ("encoder", "recipe", "dataset", "fold")),
        trials=total,
        parallel=int(about.get("parallel", 1)),
        counts=counts,
        best=None if best is None else values[best],
        best_trial=best,
        values={} if best is None else trials[best].params,
        seconds_per_trial=sum(seconds) / len(seconds) if seconds else None,
        finished=counts["left"] == 0 and not counts["running"] and not counts["waiting"],
    )


def _state(folder: Path, trial: Any) -> str:
    """Word for a trial; a result counts before the journal was told, since a round is told as a whole."""
    home = trial_folder(folder, trial.number)
    result = read_result(home)
    if result is not None:
        return {"complete": "done", "pruned": "pruned"}.get(result["state"], "failed")
    return "running" if read_job(home) else "waiting"


def table(found: list[Status]) -> str:
    """Text: a line for each search, and its best values below."""
    head = ["search (encoder, recipe, data set, fold)", "done", "pruned", "failed", "running",
            "waiting", "left", "best", "per trial", "time left"]  # fmt: skip
    rows = [
        [
            one.name,
            *(str(one.counts[word]) for word in (*WORDS, "left")),
            "-" if one.best is None else f"{one.best:.4f}",
            "-" if one.seconds_per_trial is None else duration(one.seconds_per_trial),
            "finished" if one.finished else "?" if one.left_s is None else duration(one.left_s),
        ]
        for one in found
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row, one in zip([head, *rows], [None, *found], strict=True):
        cells = [row[0].ljust(widths[0])] + [
            cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
        ]
        lines.append("  ".join(cells))
        if one is not None and one.best is not None:
            told = ", ".join(
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                for k, v in one.values.items()
            )
            lines.append(f"    best so far, trial {one.best_trial}: {told}")
    return "\n".join(lines)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
