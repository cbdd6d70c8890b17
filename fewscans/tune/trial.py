"""One trial: pretrain with its values, then judge on the inner folds of the labelled budget.

The value is the inner out-of-fold log-loss, as in every other choice of this package. Looks on the way (a probe after
each quarter of the pretraining, or the inner folds fine-tuned so far) let bad trials end early. What is done is kept
in the trial's folder, so that a trial started again goes on where it was, and comes to the same value.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from fewscans import networks, optim, protocols
from fewscans.config.stages import FinetuneParams, PretrainParams, TuneParams
from fewscans.errors import UserError
from fewscans.files import atomic, write_json
from fewscans.lease import lease
from fewscans.pretrain import ENCODER
from fewscans.protocols.source import Source
from fewscans.protocols.task import log_loss
from fewscans.store import Store
from fewscans.training_job import WEIGHTS, Job
from fewscans.training_scans import read_scans
from fewscans.tune.labels import Labelled
from fewscans.tune.space import changed, protocol_changed
from fewscans.tune.status import RESULT

log = logging.getLogger("fewscans")

# Looks at a pretraining, the last one at its end.
LOOKS = 4
Look = Callable[[int, float], None]


class PrunedError(Exception):
    """The trial stands below the others; it ends here."""


@dataclass(frozen=True)
class Data:
    """What a trial reads."""

    store: Store
    pools: Mapping[str, Store]
    folds: Path
    labelled: Labelled
    weights: Path | None
    """Folder of weights from outside, where the encoder has such."""


class TrainingError(Exception):
    """These values cannot be trained with: they say something about the space, not about the machine."""


@dataclass(frozen=True)
class Trial:
    """What one trial does, and where."""

    params: TuneParams
    values: Mapping[str, Any]
    """As `space` names them."""
    data: Data
    folder: Path
    look: Look
    """Told (number of the look, value so far); raises `PrunedError` to end the trial."""

    @cached_property
    def settings(self) -> Any:
        """The encoder's, with the trial's values."""
        return changed(self.params.settings, self.values, "encoder")

    @property
    def pretraining(self) -> PretrainParams:
        """As the stage `pretrain` would be told."""
        p = self.params
        return PretrainParams(
            encoder=p.encoder,
            settings=self.settings,
            recipe=p.recipe,
            dataset=p.dataset,
            fold=p.fold,
            seed=0,
            base_seed=p.base_seed,
            compute=p.compute,
        )

    @cached_property
    def judging(self) -> FinetuneParams:
        """As the stage `finetune` would be told."""
        p = self.params
        return FinetuneParams(
            encoder=p.encoder,
            settings=self.settings,
            recipe=p.recipe,
            recipe_name=p.recipe_name,
            protocols=[p.arm.protocol],
            protocol_settings=protocol_changed(p.protocol_settings, p.arm.protocol, self.values),
            dataset=p.dataset,
            classes=p.classes,
            fold=p.fold,
            seed=0,
            base_seed=p.base_seed,
            compute=p.compute,
        )

    @property
    def probes(self) -> bool:
        """Whether a probe judges, which can look at a half-trained encoder too."""
        return protocols.NEEDS[self.params.arm.protocol] == "features"

    def source(self, weights: Path | None) -> Source:
        """Training scans alone: a test scan is not even loaded."""
        scans = self.data.labelled.scans
        return Source(self.judging, self.data.store, scans, np.arange(len(scans)), weights)


def run(
    params: TuneParams, values: Mapping[str, Any], data: Data, folder: Path, look: Look
) -> None:
    """Write the trial's `result.json` to `folder`; arguments as in `Trial`."""
    with lease(folder / "checkpoints", (folder / RESULT).is_file) as held:
        if held is None:
            return
        began, before = time.perf_counter(), _spent(folder)
        try:
            value = _value(Trial(params, values, data, folder, look), held.check)
            facts = {"state": "complete", "value": value}
        except PrunedError:
            facts = {"state": "pruned", "reason": "below the median"}
        except TrainingError as error:
            log.warning("%s", error)
            facts = {"state": "pruned", "reason": str(error)}
        seconds = round(time.perf_counter() - began + before, 3)
        write_json(folder / RESULT, {**facts, "seconds": seconds})
        clean(folder)


def clean(folder: Path) -> None:
    """Remove the state of a finished trial."""
    for name in ("checkpoints", "encoder"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("inner.npz", "spent.json"):
        (folder / name).unlink(missing_ok=True)


def moved_since(folder: Path, when: float) -> bool:
    """Whether anything was kept in a trial's folder after `when` (seconds since 1970)."""
    for path in folder.rglob("*"):
        try:
            if path.name in ("state.pt", ENCODER, "inner.npz") and path.stat().st_mtime > when:
                return True
        except OSError:  # removed meanwhile
            continue
    return False


def _value(trial: Trial, check: Callable[[], None]) -> float:
    """Inner out-of-fold log-loss; `check` raises where the trial is another process's now."""
    weights = trial.data.weights
    if trial.params.settings.source == "pretrain":
        weights = trial.folder / "encoder"
        if not (weights / ENCODER).is_file():
            _pretrain(trial, check)
    if not trial.probes:
        return _inner_folds(trial, weights)
    try:
        value = probe(trial.judging, trial.data.labelled, trial.source(weights).features)
    except UserError as error:  # not finite
        raise TrainingError(str(error)) from None
    trial.look(LOOKS, value)
    return value


# -- pretraining -----------------------------------------------------------------------------------


def _pretrain(trial: Trial, check: Callable[[], None]) -> None:
    """Leave the trained encoder in ``folder/encoder``; looks on the way where a probe judges."""
    given, data, folder = trial.pretraining, trial.data, trial.folder
    device = optim.set_up(given.compute)
    sources, resident = read_scans(given, data.store, data.folds, data.pools, device)
    job = _Watched(given, sources, resident, device)
    if trial.probes:
        place = {scan: i for i, scan in enumerate(sources.scans)}
        mine = [place[data.labelled.scans[i]] for i in data.labelled.task.labelled]
        job.look = partial(_look_at, trial, mine)
    try:
        facts = job.train(job.checkpoint(folder / "checkpoints"), check)
    except UserError as error:  # twice diverged
        raise TrainingError(str(error)) from None
    networks.save_encoder(folder / "encoder" / WEIGHTS, job.method.encoder)
    _add_spent(folder, facts["device_seconds"])
    described = {**job.describe(facts), "source_scans": []}
    write_json(folder / "encoder" / ENCODER, described)


class _Watched(Job):
    """A pretraining that is looked at after each quarter but the last."""

    look: Callable[[int, Any, Any], None] | None = None

    def make_method(self) -> Any:
        """As pretraining makes it; its hook after each step looks too. A look changes no weight."""
        method = super().make_method()
        after = method.after_step

        def after_step(step: int, n_steps: int) -> None:
            after(step, n_steps)
            stops = {round(k * n_steps / LOOKS): k for k in range(1, LOOKS)}
            if self.look is not None and step in stops and 0 < step < n_steps:
                self.look(stops[step], method, self.resident)

        method.after_step = after_step  # type: ignore[method-assign]
        return method


def _look_at(trial: Trial, positions: list[int], number: int, method: Any, resident: Any) -> None:
    """Probe the half-trained encoder of `method` on the labelled scans."""
    labelled = trial.data.labelled
    made = networks.embed(method.encoder, resident, positions)
    features = np.zeros((len(labelled.scans), made.shape[1]), np.float32)
    features[labelled.task.labelled] = made
    if np.isfinite(made).all():  # else the training itself will say so
        trial.look(number, probe(trial.judging, labelled, features))


# -- judging ---------------------------------------------------------------------------------------


class _Features:
    """Stands for a `Source` whose features are there."""

    def __init__(self, features: Any) -> None:
        self.features = features


def probe(given: FinetuneParams, labelled: Labelled, features: Any) -> float:
    """Inner out-of-fold log-loss of a probe on `features` [N, E]; its own settings are chosen by the same folds."""
    name = given.protocols[0]
    settings = getattr(given.protocol_settings, name)
    outcome = protocols.load(name).run(labelled.task, settings, _Features(features))
    if outcome.val_prob is None:
        raise AssertionError("a budget without inner folds, which `read_labelled` refuses")
    return log_loss(outcome.val_prob, labelled.task.targets)


def _inner_folds(trial: Trial, weights: Path | None) -> float:
    """Inner out-of-fold log-loss of fine-tuning; an inner fold that was finished is not trained again."""
    task, folder = trial.data.labelled.task, trial.folder
    settings = trial.judging.protocol_settings.finetune.model_copy(update={"inner_folds": 0})
    module = protocols.load("finetune")
    source: Source | None = None
    prob = np.full((len(task.targets), task.n_classes), np.nan)
    kept = folder / "inner.npz"
    done = dict(np.load(kept)) if kept.is_file() else {}
    for number, fold in enumerate(task.inner_folds, start=1):
        train, held = task.split(fold)
        if str(fold) not in done:
            source = source or trial.source(weights)
            began = time.perf_counter()
            part = replace(
                task,
                labelled=task.labelled[train],
                targets=task.targets[train],
                inner=np.full(len(train), -1),
                test=task.labelled[held],
            )
            done[str(fold)] = module.run(part, settings, source).test_prob
            with atomic(kept) as temporary, open(temporary, "wb") as handle:
                np.savez(handle, **done)
            _add_spent(folder, time.perf_counter() - began)
        prob[held] = done[str(fold)]
        trial.look(number, log_loss(prob, task.targets))
    return log_loss(prob, task.targets)


# -- time ------------------------------------------------------------------------------------------


def _spent(folder: Path) -> float:
    """Seconds of earlier starts whose work was kept."""
    try:
        return float(json.loads((folder / "spent.json").read_text())["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0


def _add_spent(folder: Path, seconds: float) -> None:
    write_json(folder / "spent.json", {"seconds": _spent(folder) + seconds})
