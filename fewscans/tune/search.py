"""Lead a search: propose rounds of trials, have them run, tell the journal, write down what was best.

All state is on disk: the journal, and per trial a folder with its job, its training state and at last its result. So
the process that leads can be killed at any time; started again it finds the trials that went on without it.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from fewscans.batches import epoch_batches
from fewscans.cluster import deadline, slurm
from fewscans.config.stages import TuneParams
from fewscans.contracts import write_table
from fewscans.digest import code_digest
from fewscans.errors import UserError
from fewscans.files import digest, write_json
from fewscans.lease import lease
from fewscans.tune import journal
from fewscans.tune.results import best_of, table_of
from fewscans.tune.searches import BEST, TRIALS
from fewscans.tune.space import most_steps
from fewscans.tune.status import JOB, JOURNAL, RESULT, read_job, read_result, trial_folder
from fewscans.tune.submit import LOG, Launcher
from fewscans.tune.trial import Data, moved_since

log = logging.getLogger("fewscans")

# Starts of a trial that move nothing forward before it counts as failed, and failed trials that end a search in
# which none has succeeded.
STARTS, FAILURES = 3, 3
# A leader on another host is dead after so long without a sign of life.
DEAD_AFTER_S = 120.0


def identity(params: TuneParams, data: Data) -> str:
    """Digest of all that the trials follow from, their number apart: more of them go on from those there are."""
    left_out: Any = {"trials": True, "dataset": True, "recipe_name": True}
    left_out["compute"] = {"resume_elsewhere"}
    kept = params.model_dump(mode="json", exclude=left_out)
    labelled = data.labelled
    return digest(
        {
            "params": kept,
            "labelled": labelled.identity(),
            "scans": labelled.scans,
            "pixels": [str(one) for one in data.store.digests(labelled.scans)],
            "code": code_digest(
                "fewscans.tune.trial",
                "fewscans.tune.journal",
                methods=[params.settings.module],
                protocols=[params.arm.protocol],
            ),
            "versions": {name: version(name) for name in ("torch", "timm", "numpy", "optuna")},
        }
    )


def check(params: TuneParams, data: Data) -> None:
    """Refuse a space that reaches beyond the steps that every arm has."""
    most = most_steps(params, lambda batch: epoch_batches(data.labelled.n_pretraining, batch)[0])
    if most > params.max_steps:
        raise UserError(
            f"{params.encoder}: its space holds trials of {most} steps, and `tune.max_steps` is {params.max_steps} for "
            "every arm. Search fewer epochs or steps, or raise it for all."
        )


def search(
    params: TuneParams,
    data: Data,
    out: Path,
    launcher: Launcher,
    command: Callable[[int], Sequence[str]],
) -> dict[str, Any]:
    """Write `best.json` and `trials.parquet` to `out`; facts for the side-car.

    Parameters
    ----------
    command
        What runs trial N.

    Raises
    ------
    UserError
        The space is too large, or no trial succeeds.
    KeyboardInterrupt
        Asked to stop (Ctrl-C, SIGTERM); the trials are cancelled, and the same command goes on from there.
    ToBeContinuedError
        The time of the job that leads is over; the trials go on meanwhile.
    """
    check(params, data)
    mark = identity(params, data)
    folder = out / mark
    with lease(folder, lambda: False, dead_after_s=DEAD_AFTER_S) as held:
        assert held is not None
        study = journal.open_journal(folder / JOURNAL, params)
        for name, value in _shown(params).items():
            if study.user_attrs.get(name) != value:
                study.set_user_attr(name, value)
        leader = Leader(study, params, folder, launcher, command)
        with _until_asked() as asked:
            try:
                leader.lead(asked)
            except (KeyboardInterrupt, UserError):
                leader.cancel()
                raise
        facts = best_of(study, params, data.labelled, mark)
        write_table(out / TRIALS, "trials", table_of(study, params))
        write_json(out / BEST, facts)
    log.info("best of %d trials: %d, inner log-loss %.4f", params.trials, facts["trial"], facts["value"])  # fmt: skip
    return {key: facts[key] for key in ("trial", "value", "device_seconds")}


class Leader:
    """Rounds of trials until there are enough.

    Parameters
    ----------
    folder
        Of this search: journal and trials.
    """

    def __init__(
        self,
        study: optuna.Study,
        params: TuneParams,
        folder: Path,
        launcher: Launcher,
        command: Callable[[int], Sequence[str]],
    ) -> None:
        self.study, self.params, self.folder = study, params, folder
        self.launcher, self.command = launcher, command
        self.life = deadline.Watch(deadline.here())

    def lead(self, asked: threading.Event) -> None:
        """Propose, run, tell, until all trials are told."""
        p = self.params
        for first in range(0, p.trials, p.parallel):
            numbers = range(first, min(first + p.parallel, p.trials))
            trials = self.study.get_trials()
            if all(n < len(trials) and trials[n].state in journal.FINISHED for n in numbers):
                continue
            # A round that was cut short is gone on with: its trials do not hang on one another.
            for number in range(len(trials), numbers[-1] + 1):
                values = journal.propose(self.study, p, number)
                log.info("trial %d: %s", number, _words(values))
            self._run(list(numbers), asked)
            for number in numbers:
                self._tell(number)

    def cancel(self) -> None:
        """End the trials that are under way; they can be gone on with."""
        running = {
            trial.number: trial_folder(self.folder, trial.number)
            for trial in self.study.get_trials()
            if trial.state == TrialState.RUNNING
            and read_job(trial_folder(self.folder, trial.number))
        }
        if running:
            log.info("cancelling %d trials; the same command goes on from here", len(running))
            self.launcher.cancel(running)

    def _run(self, numbers: list[int], asked: threading.Event) -> None:
        """Have every one of these trials leave a result."""
        left = {n: trial_folder(self.folder, n) for n in numbers}
        for folder in left.values():
            folder.mkdir(parents=True, exist_ok=True)
        while True:
            left = {n: f for n, f in left.items() if not self._is_done(n, f)}
            if not left:
                return
            living = self.launcher.living(left)
            if living is not None:
                # A result may have appeared between the two looks.
                dead = [n for n in left if n not in living and not (left[n] / RESULT).is_file()]
                for number in dead[: max(0, self.launcher.slots - len(living))]:
                    self._start(number, left[number])
            if asked.wait(self.launcher.poll_s):
                raise KeyboardInterrupt
            if self.life.should_stop():
                # The trials go on; the next start finds them.
                self.life.stop(f"{len(left)} trials are under way", moved=True)

    def _is_done(self, number: int, folder: Path) -> bool:
        if (folder / RESULT).is_file():
            return True
        twin = self._twin(number)
        found = None if twin is None else read_result(trial_folder(self.folder, twin))
        if found is None:
            return False
        # The same values give the same result: found, not trained again.
        write_json(folder / RESULT, {**found, "seconds": 0.0})
        return True

    def _twin(self, number: int) -> int | None:
        """An earlier trial with the same values."""
        trials = self.study.get_trials()
        same = (t.number for t in trials[:number] if t.params == trials[number].params)
        return next(same, None)

    def _start(self, number: int, folder: Path) -> None:
        if self._twin(number) is not None:
            return  # it is under way
        job = read_job(folder)
        starts = job.get("starts", 0)
        if job and moved_since(folder, job["started"]):
            starts = 0
        if starts >= STARTS:
            words = _last_words(folder)
            log.warning("trial %d failed: %s", number, words)
            write_json(folder / RESULT, {"state": "failed", "reason": words})
            return
        if job:
            log.info("trial %d ended without a result; starting it again", number)
        try:
            self.launcher.start(number, self.command(number), folder)
        except slurm.SlurmError as error:
            log.info("trial %d cannot be started now, trying again: %s", number, error.text)
            return
        except OSError as error:
            raise UserError(f"trial {number} cannot be started: {error}") from None
        write_json(folder / JOB, {**read_job(folder), "starts": starts + 1})

    def _tell(self, number: int) -> None:
        result = read_result(trial_folder(self.folder, number)) or {"state": "failed"}
        journal.tell(self.study, number, result)
        states = [trial.state for trial in self.study.get_trials()]
        failed = states.count(TrialState.FAIL)
        if failed >= FAILURES and TrialState.COMPLETE not in states:
            raise UserError(
                f"{failed} trials failed and none succeeded; the last: {result.get('reason', 'no reason known')}\n"
                f"Logs: {self.folder}/trials/*/{LOG}"
            )


@contextmanager
def _until_asked() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {s: signal.signal(s, lambda *_: asked.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- what is said ----------------------------------------------------------------------------------


def _shown(params: TuneParams) -> dict[str, Any]:
    """What `fewscans tune-status` says of a search."""
    return {
        "trials": params.trials, "parallel": params.parallel, "encoder": params.encoder,
        "recipe": params.recipe_name, "dataset": params.dataset, "fold": params.fold,
        "protocol": params.arm.protocol,
    }  # fmt: skip


def _words(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def _last_words(folder: Path) -> str:
    """Last line of a trial's log that says something."""
    try:
        lines = (folder / LOG).read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:500] if lines else "no log"
