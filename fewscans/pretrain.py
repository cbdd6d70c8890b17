"""Pretrain one encoder on one fold: who may be seen, what stands already, train, write it out whole.

The digest is over content (pixels, scan keys, settings, code, versions, threads), not over names: two folds or
encoders that come to the same scans and settings are the same encoder, and a finished one is linked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import platform
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fewscans import engine, keyed, methods, networks, optim
from fewscans.checkpoint import Checkpoint, LeaseLostError, lease
from fewscans.config.stages import PretrainParams
from fewscans.contracts import read_table, write_table
from fewscans.digest import code_digest
from fewscans.errors import UserError
from fewscans.files import Cache, digest, write_json
from fewscans.methods.base import Batch, Method
from fewscans.progress import duration
from fewscans.resident import Resident
from fewscans.store import Store

log = logging.getLogger("fewscans")

# What the cache keeps; encoder.json names fold and encoder, so it is written for each run.
WEIGHTS, HISTORY, VIEWS, RECONSTRUCTIONS = "encoder.safetensors", "history.parquet", "views.npz", "reconstructions.npz"
KEPT = (WEIGHTS, HISTORY, VIEWS, RECONSTRUCTIONS)
FACTS, ENCODER = "facts.json", "encoder.json"
N_SHOWN = 6
# Below, embeddings are as good as one point or one line, whatever the loss says.
COLLAPSED_SPREAD, COLLAPSED_RANK = 0.02, 1.5


@dataclass(frozen=True)
class Sources:
    """Scans that an encoder may learn from, in order of their keys, and groups that it may not see."""

    scans: list[str]
    excluded_groups: list[str]


def pretrain(
    params: PretrainParams,
    store: Store,
    folds: Path,
    pools: Mapping[str, Store],
    out: Path,
    cache: Path,
    checkpoints: Path,
) -> dict[str, Any]:
    """Write the encoder's files to the folder `out`; facts for the side-car.

    Parameters
    ----------
    store, pools
        Of the target data set, and of others whose scans join (roles `train` and `pool` of the folds).
    folds
        ``folds.parquet``: the only split file read here.
    cache, checkpoints
        Finished encoders by digest, and state of unfinished ones.

    Raises
    ------
    UserError
        Test groups would be seen, the store does not fit, or the training diverged twice.
    """
    device = optim.set_up(params.compute)
    _check_store(params, store, pools)
    sources = choose_scans(read_table(folds, "folds"), params, stored=[store, *pools.values()])
    resident = load_scans(sources.scans, [store, *pools.values()], device)
    job = Job(params, sources, resident, device)
    kept = Cache(cache)
    hit = kept.has(job.digest)
    while not kept.has(job.digest):
        # Where another process took our lease, it works on the same: wait for it.
        with contextlib.suppress(LeaseLostError):
            _make(job, kept, Checkpoint(checkpoints / job.digest))
    if not kept.get(job.digest, {name: out / name for name in KEPT}):
        raise OSError(f"{kept.entry(job.digest)}: is not whole; remove it and start again")
    facts = json.loads((kept.entry(job.digest) / FACTS).read_text(encoding="utf-8"))
    # Last, so that its presence means that all the others are there.
    write_json(out / ENCODER, job.describe(facts))
    log.info("%s: %s %s", params.encoder, "found in the cache as" if hit else "finished as", job.digest)
    return {"digest": job.digest, "from_cache": hit, "device_seconds": facts["device_seconds"], "flags": facts["flags"]}


def _make(job: Job, kept: Cache, checkpoint: Checkpoint) -> None:
    """Train and keep, or wait for the process that does; afterwards the cache has it."""
    with lease(checkpoint.folder, lambda: kept.has(job.digest)) as held:
        if held is None:
            return
        facts = job.train(checkpoint, held.check)
        with tempfile.TemporaryDirectory(dir=checkpoint.folder, prefix="made-") as made:
            job.write(Path(made), facts)
            kept.put(job.digest, {name: Path(made) / name for name in (*KEPT, FACTS)})
        if not kept.has(job.digest):
            raise OSError(f"{kept.root}: cannot be written; the encoder could not be kept")
        checkpoint.remove()


def _check_store(params: PretrainParams, store: Store, pools: Mapping[str, Store]) -> None:
    recipe = params.recipe
    for name, one in {params.dataset: store, **pools}.items():
        if (one.size, one.channels) != (recipe.size, recipe.channels):
            raise UserError(
                f"store of {name}: has {one.channels} x {one.size} x {one.size}, and the recipe says "
                f"{recipe.channels} x {recipe.size} x {recipe.size}. Make it again with this recipe."
            )


def choose_scans(folds: pd.DataFrame, params: PretrainParams, stored: list[Store]) -> Sources:
    """Training scans of the fold and its pools; with `transductive` those of the test fold too.

    Raises
    ------
    UserError
        The fold is not there, a test group would be seen, or nothing is left.
    """
    transductive = bool(getattr(params.settings, "transductive", False))
    if params.fold == "all" and not transductive:
        raise UserError("fold 'all' is for transductive encoders only: it has no test groups. Name a fold.")
    rows = folds if params.fold == "all" else folds[folds["fold"] == params.fold]
    if rows.empty:
        known = ", ".join(sorted(set(folds["fold"])))
        raise UserError(f"no fold '{params.fold}' of data set {params.dataset}. Known: {known}")
    roles = ["train", "pool", "test"] if transductive else ["train", "pool"]
    chosen = rows[rows["role"].isin(roles)]
    excluded = set() if transductive else set(rows.loc[rows["role"] == "test", "group"])
    leaking = chosen[chosen["group"].isin(excluded)]
    if len(leaking):
        shown = [(str(scan), f"is in test group {group}") for scan, group in leaking[["scan", "group"]].values[:5]]
        raise UserError(
            f"fold {params.fold}: pretraining would see {len(leaking)} scans of test groups. Make the folds again, or "
            "set `transductive: true`",
            shown,
        )
    scans = sorted(set(chosen["scan"]))
    there = [scan for scan in scans if any(scan in store for store in stored)]
    if len(there) < len(scans):
        log.warning("%d of %d training scans are in no store and are left out", len(scans) - len(there), len(scans))
    if len(there) < 2:
        raise UserError(f"fold {params.fold}: {len(there)} training scans; pretraining needs at least 2.")
    return Sources(there, sorted(excluded))


def load_scans(scans: list[str], stores: list[Store], device: torch.device) -> Resident:
    """`scans` on the device; each comes from the first store that has it."""
    parts, left = [], scans
    for store in stores:
        mine = [scan for scan in left if scan in store]
        left = [scan for scan in left if scan not in store]
        if mine:
            parts.append(Resident(store, mine, device))
    return Resident.join(parts)


class Job:
    """One encoder on one set of scans with one seed: its settings as they came out, its digest, its training."""

    def __init__(self, params: PretrainParams, sources: Sources, resident: Resident, device: torch.device) -> None:
        self.params, self.sources, self.resident, self.device = params, sources, resident, device
        self.settings: Any = params.settings
        self.kind = methods.load(self.settings.method)
        # By content: neither fold nor encoder is in it, so that the same scans are seen in the same views.
        self.seed_key = keyed.key_of("pretrain", params.base_seed, params.seed)
        self.schedule = self._schedule()
        self.patch_size = networks.patch_size(self.settings.backbone, params.recipe.size, self.settings.patch_size)
        self.resolved = self._resolve()
        self.digest = digest(self._identity())

    def _schedule(self) -> engine.Schedule:
        s, n = self.settings, len(self.resident)
        batch = min(s.batch_size, n)
        if batch < s.batch_size:
            log.info("batch_size %d is more than the %d scans: reduced to %d", s.batch_size, n, batch)
        return engine.Schedule(
            epochs=s.epochs,
            batch_size=batch,
            steps_per_epoch=n // batch,
            lr=s.lr if s.lr is not None else self.kind.base_lr * batch / 256,
            weight_decay=s.weight_decay if s.weight_decay is not None else self.kind.weight_decay,
            warmup=s.warmup,
            clip_grad_norm=s.clip_grad_norm,
            seed_key=self.seed_key,
            precision=optim.precision_of(self.params.compute, self.device),
        )

    def _resolve(self) -> dict[str, Any]:
        """Settings with what was left open filled in; without what changes no result."""
        shown = self.settings.model_dump(mode="json", exclude={"checkpoint_minutes"})
        shown |= {"batch_size": self.schedule.batch_size, "lr": self.schedule.lr, "patch_size": self.patch_size}
        return shown | {"weight_decay": self.schedule.weight_decay}

    def _identity(self) -> dict[str, Any]:
        """All that the weights follow from."""
        p = self.params
        return {
            "scans": sorted(self.resident.identity()), "settings": self.resolved, "seed_key": self.seed_key, "size": p.recipe.size,
            "channels": p.recipe.channels, "threads": p.compute.threads, "device": self.device.type,
            "precision": self.schedule.precision, "code": code_digest("fewscans.pretrain", methods=[self.settings.method]),
            "versions": {name: version(name) for name in ("torch", "timm", "numpy")},
        }  # fmt: skip

    def make_method(self) -> Method:
        """Encoder and heads with their first weights, on the device."""
        p = self.params
        encoder = networks.make_encoder(
            self.settings.backbone,
            size=p.recipe.size,
            channels=p.recipe.channels,
            patch_size=self.settings.patch_size,
            init_key=keyed.key_of("init", self.seed_key),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed.key_of("heads", self.seed_key) % 2**63)
            method = self.kind(encoder, self.settings, size=p.recipe.size, channels=p.recipe.channels)
        optim.place(method, self.device)
        return method

    def train(self, checkpoint: Checkpoint, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Train to the last epoch; a second time at half the learning rate where the first diverged."""
        state = checkpoint.load()
        halved = bool(state and state["halved"])
        while True:
            schedule = replace(self.schedule, lr=self.schedule.lr * (0.5 if halved else 1.0))
            self.method = self.make_method()
            training = self._training(schedule, checkpoint, halved, check)
            if state is not None:
                training.load(state["training"])
                log.info("going on from step %d of %d", training.step, schedule.n_steps)
            try:
                with _ask_to_stop() as training.should_stop:
                    training.run()
                break
            except engine.DivergedError as error:
                if halved:
                    raise UserError(self._diverged(error, schedule.lr)) from None
                # From the start and not from a checkpoint: when those are written depends on the clock.
                log.warning("diverged (%s); once more from the start at half the learning rate", error)
                state, halved = None, True
        return self._facts(training, schedule, halved)

    def _training(self, schedule: engine.Schedule, checkpoint: Checkpoint, halved: bool, check: Callable[[], None]) -> engine.Training:
        def save(state: dict[str, Any]) -> None:
            check()
            checkpoint.save({"halved": halved, "training": state})

        return engine.Training(
            self.method,
            self.resident,
            schedule,
            save=save,
            checkpoint_s=self.settings.checkpoint_minutes * 60,
            label=self.params.encoder,
        )

    def _diverged(self, error: Exception, lr: float) -> str:
        return (
            f"{self.params.encoder}: pretraining diverged twice ({error}). Set `lr` below {lr:.2g}, a longer `warmup` "
            f"(now {self.schedule.warmup:g}), or `clip_grad_norm: 1` in encoders.{self.params.encoder}."
        )

    def _facts(self, training: engine.Training, schedule: engine.Schedule, halved: bool) -> dict[str, Any]:
        last = training.history[-1]
        flags = ["lr-halved"] if halved else []
        if last["embedding_std"] < COLLAPSED_SPREAD or last["effective_rank"] < COLLAPSED_RANK:
            log.warning(
                "%s: collapsed: embeddings hardly differ (spread %.3f, effective rank %.1f)",
                self.params.encoder, last["embedding_std"], last["effective_rank"],
            )  # fmt: skip
            flags.append("collapsed")
        if not all(bool(torch.isfinite(p).all()) for p in self.method.parameters()):
            raise UserError(self._diverged(ValueError("weights are not finite"), schedule.lr))
        self.history = training.history
        log.info("%s: %d steps in %s", self.params.encoder, training.step, duration(training.seconds))
        return {
            "flags": flags, "lr": schedule.lr, "steps": training.step, "steps_per_epoch": schedule.steps_per_epoch,
            "resolved": self.method.resolved(), "device_seconds": round(training.seconds, 3),
            "device_name": device_name(self.device), "loss": last["loss"],
            "network": self.method.encoder.fewscans_network,
        }  # fmt: skip

    def write(self, folder: Path, facts: dict[str, Any]) -> None:
        """The files that the cache keeps."""
        networks.save_encoder(folder / WEIGHTS, self.method.encoder)
        write_table(folder / HISTORY, "history", pd.DataFrame(self.history))
        self._write_pictures(folder)
        write_json(folder / FACTS, facts)

    def _write_pictures(self, folder: Path) -> None:
        """Views and reconstructions of a few training scans, as uint8; no reconstructions without a mask."""
        index = keyed.permutation(self.seed_key, 0, self.resident.keys)[:N_SHOWN]
        scans = np.array([self.resident.scans[i] for i in index])
        x, keys = self.resident.batch(index), self.resident.keys[index]
        # A method with one view shows those of two epochs.
        places = [(0, view) for view in range(self.kind.n_views)] if self.kind.n_views > 1 else [(0, 0), (1, 0)]
        views = [
            Batch(x, keys, epoch, self.seed_key).augmented(view, self.method.policy) for epoch, view in places
        ]
        np.savez(
            folder / VIEWS, scan=scans, original=_as_uint8(x), views=np.stack([_as_uint8(v) for v in views], axis=1)
        )
        was_training = self.method.training
        self.method.eval()
        with torch.inference_mode():
            made = self.method.pictures(Batch(x, keys, 0, self.seed_key))
        self.method.train(was_training)
        none = np.zeros((0, *self.resident.shape), dtype=np.uint8)
        names = ("original", "masked", "reconstructed")
        arrays = {name: none if made is None else _as_uint8(made[name]) for name in names}
        np.savez(folder / RECONSTRUCTIONS, scan=scans if made is not None else scans[:0], **arrays)

    def describe(self, facts: dict[str, Any]) -> dict[str, Any]:
        """encoder.json: what made this encoder, what it takes, and whom it has seen."""
        p = self.params
        hashed = [hashlib.sha256(group.encode()).hexdigest()[:16] for group in self.sources.excluded_groups]
        return {
            "name": p.encoder, "method": self.settings.method, "dataset": p.dataset, "fold": p.fold, "seed": p.seed,
            "base_seed": p.base_seed,
            "settings": self.resolved | facts["resolved"] | {"lr": facts["lr"]},
            "network": facts["network"],
            "input": {"size": p.recipe.size, "channels": p.recipe.channels, "range": [0.0, 1.0]},
            "transductive": self.settings.transductive, "flags": facts["flags"],
            "source_scans": self.sources.scans, "n_scans": len(self.sources.scans),
            "scans_digest": digest(self.sources.scans), "excluded_groups": sorted(hashed),
            "steps": facts["steps"], "epochs": self.settings.epochs, "loss": facts["loss"],
            "device": self.device.type, "device_name": facts["device_name"], "threads": p.compute.threads,
            "precision": self.schedule.precision, "device_seconds": facts["device_seconds"],
            "versions": {name: version(name) for name in ("torch", "timm", "numpy")},
            "digest": self.digest, "parent": None, "parents": [],
        }  # fmt: skip


def device_name(device: torch.device) -> str:
    """Name of the accelerator, or of the processor's kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else (platform.processor() or platform.machine())


def _as_uint8(x: torch.Tensor) -> np.ndarray:
    return (x.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


@contextlib.contextmanager
def _ask_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM came: a cluster's warning, time to save the state."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = ["Job", "LeaseLostError", "Sources", "choose_scans", "load_scans", "pretrain"]
