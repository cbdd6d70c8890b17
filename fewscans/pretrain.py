"""Pretrain one encoder on one fold: who may be seen, what stands already, train, write it out whole."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewscans import optim
from fewscans.checkpoint import Checkpoint
from fewscans.config.stages import PretrainParams
from fewscans.distributed import join
from fewscans.errors import UserError
from fewscans.files import Cache, write_json
from fewscans.known import read_known
from fewscans.lease import LeaseLostError, lease
from fewscans.ranks import Place
from fewscans.start import Start
from fewscans.store import Store
from fewscans.training_job import ELSEWHERE, FACTS, KEPT, Job
from fewscans.training_scans import read_scans

log = logging.getLogger("fewscans")

ENCODER = "encoder.json"
# What rank 0 tells the others to do.
WAIT, TRAIN, DONE = "wait", "train", "done"


def pretrain(
    params: PretrainParams,
    store: Store,
    folds: Path,
    pools: Mapping[str, Store],
    out: Path,
    cache: Path,
    checkpoints: Path,
    place: Place | None = None,
    labels: Mapping[str, Path] | None = None,
    start: Path | None = None,
    gauge: Path | None = None,
) -> dict[str, Any]:
    """Write the encoder's files to the folder `out`; facts for the side-car.

    Where several processes share the training, all of them call this; the first one alone reads and writes state and
    results, holds the lease and has facts to return.

    Parameters
    ----------
    store, pools
        Of the target data set, and of others whose scans join (roles `train` and `pool` of the folds).
    folds
        ``folds.parquet``: the only split file read here.
    cache, checkpoints
        Finished encoders by digest, and state of unfinished ones.
    place
        Which of the processes this one is (`ranks` in the settings).
    labels
        Data set -> its ``labels.parquet``; read only where the method asks for what stands there.
    gauge
        ``labels.parquet`` of the target data set, for a probe of neighbours on the way: a gauge, which chooses nothing.
    start
        Encoder's folder or file of weights to start from, where the settings say so.

    Raises
    ------
    UserError
        Test groups would be seen, the store does not fit, or the training diverged twice.
    ToBeContinuedError
        The job's time is over, or somebody asked to stop; the state is saved.
    """
    device = optim.set_up(params.compute)
    sources, resident = read_scans(params, store, folds, pools, device)
    kept = Cache(cache)
    first = open_start(params, start, folds)
    known = None
    if wants := params.settings.wants():
        known = read_known(
            wants, resident.scans, sources.labelled, labels or {}, params.dataset, params.values,
            getattr(params.settings, "tables", None),
        )  # fmt: skip
    with join(place, device) as ranks:
        job = Job(params, sources, resident, device, ranks, known, first, gauge)
        job.check_ranks()
        if not ranks.leads:
            _follow(job, job.checkpoint(checkpoints))
            return {}
        hit = job.found(kept) is not None
        while (key := job.found(kept)) is None:
            # Where another process took our lease, it works on the same: wait for it.
            with contextlib.suppress(LeaseLostError):
                _make(job, kept, job.checkpoint(checkpoints))
        ranks.first(lambda: DONE)
    facts = json.loads((kept.entry(key) / FACTS).read_text(encoding="utf-8"))
    if not kept.get(key, {name: out / name for name in kept_by(facts)}):
        raise OSError(f"{kept.entry(key)}: is not whole; remove it and start again")
    for old in {path.name for path in out.glob("*.safetensors")} - set(kept_by(facts)):
        (out / old).unlink()  # of another method under this name
    # Last, so that its presence means that all the others are there.
    write_json(out / ENCODER, {**job.describe(facts), "digest": key})
    log.info("%s: %s %s", params.encoder, "found in the cache as" if hit else "finished as", key)
    return {
        "digest": key,
        "from_cache": hit,
        "device_seconds": facts["device_seconds"],
        "flags": facts["flags"],
    }


def kept_by(facts: dict[str, Any]) -> list[str]:
    """Files of a finished encoder: those that all have, and weights of parts that its method hands on."""
    return [*KEPT, *(f"{name}.safetensors" for name in facts["handed_on"])]


def open_start(params: PretrainParams, start: Path | None, folds: Path) -> Start | None:
    """The start that the settings ask for; a UserError where it is not given, or has seen test groups."""
    settings: Any = params.settings
    if settings.start is None:
        return None
    if start is None:
        raise UserError(f"{params.encoder}: starts from {settings.start}; give it with --start.")
    found = Start.open(start)
    found.check(folds, params.fold, settings.transductive)
    return found


def _make(job: Job, kept: Cache, checkpoint: Checkpoint) -> None:
    """Train and keep, or wait for the process that does; afterwards the cache has it."""

    def finished() -> bool:
        # Now and then: the others' patience has an end, our wait for a lease has none.
        job.ranks.first(lambda: WAIT)
        return job.found(kept) is not None

    with lease(checkpoint.folder, finished) as held:
        if held is None:
            return
        job.ranks.first(lambda: TRAIN)
        facts = job.train(checkpoint, held.check)
        key = job.digest_elsewhere if ELSEWHERE in facts["flags"] else job.digest
        with tempfile.TemporaryDirectory(dir=checkpoint.folder, prefix="made-") as made:
            job.write(Path(made), facts)
            kept.put(key, {name: Path(made) / name for name in (*kept_by(facts), FACTS)})
        if not kept.has(key):
            raise OSError(f"{kept.root}: cannot be written; the encoder could not be kept")
        checkpoint.remove()


def _follow(job: Job, checkpoint: Checkpoint) -> None:
    """Train when rank 0 does, until it has written everything."""
    while (word := job.ranks.first(lambda: WAIT)) != DONE:
        if word == TRAIN:
            with contextlib.suppress(LeaseLostError):
                job.train(checkpoint)
