"""Use one encoder on one fold with one seed: all protocols, budgets and draws in one process.

A finished run stands in the cache under a digest of what it follows from (weights, pixels, labelled
scans with their targets and inner folds, test scans, settings, code, versions, threads, device), so
that a killed job goes on where it was, and a new budget computes only itself. A job without images
(`majority`) never imports torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewscans import protocols
from fewscans.cluster import deadline
from fewscans.cluster.scratch import near
from fewscans.config.encoders import ScratchLong
from fewscans.config.stages import FinetuneParams
from fewscans.contracts import read_table
from fewscans.errors import UserError, did_you_mean
from fewscans.files import Cache
from fewscans.fitted import check_fitted
from fewscans.keyed import key_of
from fewscans.labelled import Budget, Fold, check_not_seen, count_pretraining_scans, read_fold
from fewscans.predictions import Record, write_embeddings, write_predictions
from fewscans.protocols.identity import Identity, keep_arrays, keep_run, recall_arrays, recall_run

if TYPE_CHECKING:
    from fewscans.protocols.source import Source
    from fewscans.store import Store

log = logging.getLogger("fewscans")

# A run may take so much longer than the longest before it.
LONGER = 1.3
# Flag of runs with settings that a search has found.
TUNED = "tuned"


@dataclass(frozen=True)
class Files:
    """Where a job reads and writes."""

    labels: Path
    folds: Path
    budgets: Path
    predictions: Path
    cache: Path
    store: Path | None = None
    """Not read by `majority`."""
    encoder: Path | None = None
    """Folder of the weights, where the encoder has any before labels are seen."""
    embeddings: Path | None = None
    """Folder; without it no embeddings are written."""


def finetune(params: FinetuneParams, files: Files, tuned: Collection[str] = ()) -> dict[str, Any]:
    """Write predictions and embeddings of every protocol, budget and draw; facts for the side-car.

    Parameters
    ----------
    tuned
        Protocols whose settings, or whose encoder's, a search has found: their runs are flagged, since a table shows
        the config's settings.

    Raises
    ------
    UserError
        A file that the encoder needs is not given, tables do not fit together, or the encoder or
        what fitted the store has seen test groups.
    ToBeContinuedError
        The job's time is over, or somebody asked to stop; finished runs stand in the cache.
    """
    _check(params, files)
    encoder = _read_encoder(params, files.encoder)
    flags = check_not_seen(encoder, files.encoder or Path(), files.folds, params.fold)
    flags += [flag for flag in encoder.get("flags") or [] if flag not in flags]
    cache = Cache(files.cache)
    with contextlib.ExitStack() as stack:
        life = stack.enter_context(deadline.watch(at_once=True))
        store = _open_store(params, files, stack)
        fold = read_fold(
            params.fold,
            files.labels,
            files.folds,
            files.budgets,
            classes=params.classes,
            stored=None if store is None else set(store.scans),
        )
        params = _with_extra_steps(params, files.folds)
        source = _make_source(params, files, fold, store)
        identity = Identity(params, fold, encoder, files.encoder, store, source)
        records: list[Record] = []
        todo = [(protocol, budget) for protocol in params.protocols for budget in fold.budgets]
        for protocol, budget in todo:
            _check_time(life, records, protocol, len(todo))
            made = _run(params, protocol, budget, source, identity, cache)
            if protocol in tuned:  # not in the cache: a config may say the same values
                made.outcome.flags = [TUNED, *made.outcome.flags]
            records.append(made)
        seconds = _embeddings(files.embeddings, fold, source, identity, cache, records)
        facts = {**identity.encoder_facts(), "embedding_seconds": seconds}
    write_predictions(files.predictions, params, fold, records, flags, facts)
    recalled = sum(record.recalled for record in records)
    log.info("%d runs, %d of them from the cache", len(records), recalled)
    return {"runs": len(records), "from_cache": recalled}


# -- before anything is computed ------------------------------------------------------------------


def _check(params: FinetuneParams, files: Files) -> None:
    """Refuse what does not go together, before anything is read."""
    for name in params.protocols:
        if name not in protocols.PROTOCOLS:
            raise UserError(f"'{name}' is not a protocol.{did_you_mean(name, protocols.PROTOCOLS)}")
        if name not in params.settings.protocols:
            legal = ", ".join(params.settings.protocols)
            raise UserError(
                f"{params.encoder}: {_method(params)} has no protocol '{name}'. It has: {legal}."
            )
    if _needs_pixels(params) and files.store is None:
        raise UserError("--store is missing: this encoder sees images.")
    if params.settings.source != "none" and files.encoder is None:
        raise UserError(f"--encoder is missing: {_method(params)} starts from weights.")


def _method(params: FinetuneParams) -> str:
    return params.settings.method


def _needs_pixels(params: FinetuneParams) -> bool:
    return any(protocols.NEEDS[name] != "nothing" for name in params.protocols)


def _read_encoder(params: FinetuneParams, folder: Path | None) -> dict[str, Any]:
    """encoder.json; for an encoder without a file what there is to say about it."""
    if folder is None or params.settings.source == "none":
        return {
            "method": _method(params),
            "backbone": params.settings.backbone,
            "device_seconds": 0.0,
        }
    try:
        return json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no encoder here (encoder.json is missing).") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{folder}/encoder.json: not valid JSON ({error}).") from None


def _open_store(params: FinetuneParams, files: Files, stack: contextlib.ExitStack) -> Store | None:
    """The store, and scikit-learn held to the job's threads; None where no image is seen."""
    if files.store is None or not _needs_pixels(params):
        return None
    from threadpoolctl import threadpool_limits

    from fewscans.store import Store

    # Sums are split by threads: their number belongs to the result, and so to what BLAS may take.
    stack.enter_context(threadpool_limits(params.compute.threads))
    store = Store.open(near(files.store))
    recipe = params.recipe
    if store.shape != recipe.shape:
        raise UserError(
            f"{files.store}: holds {store.shape}, but the recipe says {recipe.shape} "
            f"({recipe.shape.axis_names}). "
            "Run normalise again."
        )
    folds = read_table(files.folds, "folds")
    check_fitted({params.dataset: store}, folds, params.fold, is_fitted=recipe.is_fitted)
    return store


def _make_source(
    params: FinetuneParams, files: Files, fold: Fold, store: Store | None
) -> Source | None:
    if store is None:
        return None
    from fewscans.protocols.source import Source

    folder = None if params.settings.source == "none" else files.encoder
    return Source(params, store, fold.scans, fold.train, folder)


def _with_extra_steps(params: FinetuneParams, folds: Path) -> FinetuneParams:
    """`params` with the steps of pretraining on top of those of fine-tuning, for `scratch-long`."""
    if not isinstance(params.settings, ScratchLong):
        return params
    extra = params.settings.extra_steps
    if extra is None:
        n = count_pretraining_scans(folds, params.fold)
        extra = max((one.count(n) for one in params.extra), default=0)
    settings = params.protocol_settings
    tuned = settings.finetune.model_copy(update={"steps": settings.finetune.steps + extra})
    return params.model_copy(
        update={"protocol_settings": settings.model_copy(update={"finetune": tuned})}
    )


# -- one run --------------------------------------------------------------------------------------


def _check_time(life: deadline.Watch, records: list[Record], protocol: str, n: int) -> None:
    """End between two runs where the next one might not fit any more; never before one was made."""
    made = [record for record in records if not record.recalled]
    like = [record for record in records if record.protocol == protocol] or records
    ahead_s = LONGER * max((record.device_seconds for record in like), default=0.0) if made else 0.0
    words = f"{len(records)} of {n} runs are done, {len(made)} of them by this start"
    life.check(ahead_s, words, moved=bool(made))


def _run(
    params: FinetuneParams,
    protocol: str,
    budget: Budget,
    source: Source | None,
    identity: Identity,
    cache: Cache,
) -> Record:
    """One protocol on one budget and draw: from the cache, or made and put there."""
    # The arm is not in the key: arms share their noise as far as they can, and differ by less of
    # it. Draws and folds are, so that each is a training of its own.
    key = key_of("finetune", params.base_seed, params.seed, params.fold, budget.draw)
    budget = replace(budget, task=replace(budget.task, key=key))
    mark = identity.of_run(protocol, budget.task)
    title = f"{protocol}, budget {budget.name}, draw {budget.draw}"
    found = recall_run(cache, mark)
    if found is not None:
        log.info("%s: from the cache", title)
        return Record(protocol, budget, *found, mark, recalled=True, code=identity.code(protocol))
    if protocols.NEEDS[protocol] == "features":
        _load_features(source, identity, cache)
    module = protocols.load(protocol)  # before the clock starts
    settings = getattr(params.protocol_settings, protocol, None)
    began = time.perf_counter()
    outcome = module.run(budget.task, settings, source)
    seconds = round(time.perf_counter() - began, 3)
    keep_run(cache, mark, outcome, seconds)
    chosen = ", ".join(f"{name} {value}" for name, value in outcome.choices.items())
    log.info(
        "%s: %.1f s; %s",
        title,
        seconds,
        "; ".join(filter(None, [chosen, ", ".join(outcome.flags)])),
    )
    return Record(
        protocol, budget, outcome, seconds, mark, recalled=False, code=identity.code(protocol)
    )


def _load_features(source: Any, identity: Identity, cache: Cache) -> None:
    """Have `source.features`: in memory, from the cache, or made and put there."""
    if source.has_features:
        return
    found = recall_arrays(cache, identity.of_features)
    if found is not None:
        source.set_features(found["features"], float(found["seconds"]))
        return
    arrays = {"features": source.features, "seconds": np.array(round(source.embedding_seconds, 3))}
    keep_arrays(cache, identity.of_features, arrays)


def _embeddings(
    folder: Path | None,
    fold: Fold,
    source: Source | None,
    identity: Identity,
    cache: Cache,
    records: list[Record],
) -> float:
    """Write what figures and clustering indices see; seconds that frozen embeddings took.

    A frozen encoder: all scans of the fold. Scratch has none before labels: its test scans,
    embedded by the network fine-tuned on the largest budget (`all`, where asked for), draw 0.
    Majority: no row.
    """
    if source is not None and source.frozen:
        _load_features(source, identity, cache)
        if folder is not None:
            write_embeddings(folder, fold, np.arange(len(fold.scans)), source.features)
        return round(source.embedding_seconds, 3)
    if folder is not None:
        positions, values = np.empty(0, np.int64), np.empty((0, 0), np.float16)
        largest = (False, -1)
        for one in records:
            task, made = one.budget.task, one.outcome.test_embeddings
            rank = (one.budget.name == "all", len(task.labelled))
            if made is not None and one.budget.draw == 0 and rank > largest:
                positions, values, largest = task.test, made, rank
        write_embeddings(folder, fold, positions, values)
    return 0.0
