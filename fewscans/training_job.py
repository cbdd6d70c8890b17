"""One encoder's training as a job: its settings as they came out, its digest, its state, what it leaves.

The digest is over content (pixels, scan keys, settings, code, versions, threads), not over names: two folds or
encoders that come to the same scans and settings are the same encoder.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import platform
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fewscans import engine, keyed, methods, networks, optim, outofmemory
from fewscans.attempts import Attempts
from fewscans.batches import epoch_batches, training_steps
from fewscans.checkpoint import Checkpoint
from fewscans.config.stages import PretrainParams
from fewscans.contracts import write_table
from fewscans.digest import code_digest
from fewscans.distributed import ALONE, Ranks
from fewscans.errors import UserError
from fewscans.files import Cache, digest, write_json
from fewscans.fitted import FITTED
from fewscans.gauges import ProbeScans, collapsed
from fewscans.known import Known
from fewscans.methods.base import Method
from fewscans.pictures import RECONSTRUCTIONS, VIEWS, write_pictures
from fewscans.progress import duration
from fewscans.resident import Resident
from fewscans.start import Start
from fewscans.training_scans import Sources

log = logging.getLogger("fewscans")

# What the cache keeps; encoder.json names fold and encoder, so it is written for each run.
WEIGHTS, HISTORY, FACTS = "encoder.safetensors", "history.parquet", "facts.json"
KEPT = (WEIGHTS, HISTORY, VIEWS, RECONSTRUCTIONS)
# Flag of weights that were trained on several models of CPU or GPU.
ELSEWHERE = "resumed-elsewhere"
# Flag of weights that were trained with all labels of the training fold, whatever the budget of a row.
SAW_LABELS = "pretrained-with-labels"
# Flag of weights whose loss compared scans with those of their micro-batch alone, not of the batch.
IN_PARTS = "compared-in-parts"


class Job:
    """One encoder on one set of scans with one seed: its settings as they came out, its digest, its training."""

    method: Method
    """Network and heads of the present attempt."""

    def __init__(
        self,
        params: PretrainParams,
        sources: Sources,
        resident: Resident,
        device: torch.device,
        ranks: Ranks = ALONE,
        known: Known | None = None,
        start: Start | None = None,
        labels: Path | None = None,
    ) -> None:
        self.ranks, self.known, self.start = ranks, known, start
        self.params, self.sources, self.resident, self.device = params, sources, resident, device
        self.settings: Any = params.settings
        self.kind = methods.load(self.settings.method)
        # By content, not by names of fold or encoder: the same scans give the same encoder, and the trainings of
        # different folds are independent of each other, as the spread in a verdict takes them to be.
        self.seed_key = keyed.key_of(
            "pretrain", params.base_seed, params.seed, digest(sources.scans)
        )
        # For a gauge alone, so no part of the digest.
        self.probe_scans = None
        if labels is not None:
            self.probe_scans = ProbeScans.read(
                labels, resident, sources.labelled, params.dataset, self.seed_key
            )
        self.schedule = self._schedule()
        self.patch_size = networks.patch_size(
            self.settings.backbone, params.recipe.seen, self.settings.patch_size
        )
        self.resolved = self._resolve()
        self.digest = digest(self._identity())
        self.digest_elsewhere = digest([self.digest, ELSEWHERE])

    def _schedule(self) -> engine.Schedule:
        s, n = self.settings, len(self.resident)
        steps, batch = epoch_batches(n, s.batch_size, s.ranks)
        if not batch:
            raise UserError(
                f"{self.params.encoder}: {n} training scans for {s.ranks} ranks. Set fewer `ranks`."
            )
        if batch != s.batch_size:
            log.info(
                "batch_size %d on %d scans: %d steps of %d an epoch", s.batch_size, n, steps, batch
            )
        if not self.fits(batch, s.accumulate):
            raise UserError(
                f"{self.params.encoder}: {s.accumulate} micro-batches of a batch of {batch} scans would have less than "
                f"two each. Set `accumulate` to {max(1, batch // s.ranks // 2)} at most."
            )
        n_steps = training_steps(steps, s.epochs, s.steps)
        lr, weight_decay = optim.rates(
            s.optimizer, batch, self.kind.base_lr, self.kind.weight_decay
        )
        return engine.Schedule(
            epochs=-(-n_steps // steps),
            steps=n_steps,
            batch_size=batch,
            steps_per_epoch=steps,
            lr=s.lr if s.lr is not None else lr,
            weight_decay=s.weight_decay if s.weight_decay is not None else weight_decay,
            warmup=s.warmup,
            clip_grad_norm=s.clip_grad_norm,
            seed_key=self.seed_key,
            precision=optim.precision_of(self.params.compute, self.device),
            optimizer=s.optimizer,
            momentum=s.sgd_momentum,
            accumulate=s.accumulate,
            ema=s.ema,
            sync_batchnorm=s.sync_batchnorm,
        )

    def fits(self, batch: int, accumulate: int) -> bool:
        """Whether each micro-batch has two scans, which batch norm and most losses need."""
        return accumulate == 1 or batch // self.settings.ranks // accumulate >= 2

    def _resolve(self) -> dict[str, Any]:
        """Settings with what was left open filled in; without what changes no result."""
        shown = self.settings.model_dump(mode="json", exclude={"checkpoint_minutes"})
        shown |= {
            "epochs": self._epochs(),
            "steps": self.schedule.n_steps,
            "batch_size": self.schedule.batch_size,
            "lr": self.schedule.lr,
            "patch_size": self.patch_size,
        }
        return shown | {"weight_decay": self.schedule.weight_decay}

    def _epochs(self) -> float:
        """Passes over the scans, whole or not."""
        passes = self.schedule.n_steps / self.schedule.steps_per_epoch
        return int(passes) if passes.is_integer() else round(passes, 2)

    def _identity(self) -> dict[str, Any]:
        """All that the weights follow from."""
        p = self.params
        # What these say is in `scans` and `start`; names change nothing.
        settings = {k: v for k, v in self.resolved.items() if k not in ("start", "scans", "stage")}
        return {
            "scans": sorted(self.resident.identity()), "settings": settings, "seed_key": self.seed_key,
            **p.recipe.shape.facts(), "crop": p.recipe.crop, "threads": p.compute.threads,
            "device": self.device.type, "precision": self.schedule.precision, "versions": versions(),
            "code": code_digest("fewscans.pretrain", methods=[self.settings.module]),
            "start": self.start.digest if self.start is not None else None,
            "known": self.known.identity() if self.known is not None else None,
        }  # fmt: skip

    def check_ranks(self) -> None:
        """Refuse ranks that are not as many as the settings say, or that compute something else than the first."""
        wanted, there = self.settings.ranks, self.ranks.size
        if wanted != there:
            raise UserError(
                f"{self.params.encoder}: `ranks: {wanted}`, and there are {there}. Use scripts/pretrain.py, which "
                "starts as many as there must be."
            )
        if self.ranks.first(lambda: self.digest) != self.digest:
            raise UserError(
                f"{self.params.encoder}: rank {self.ranks.rank} has other scans, packages, code or threads than rank 0."
                " Let all nodes have the same environment and see the same files."
            )

    def found(self, kept: Cache) -> str | None:
        """Digest under which the cache has it: made in one place, or in several where that is allowed."""
        allowed = [self.digest, self.digest_elsewhere]
        return next(filter(kept.has, allowed[: 1 + self.params.compute.resume_elsewhere]), None)

    def checkpoint(self, folder: Path) -> Checkpoint:
        """State of this training below `folder`, marked with what rounds differently."""
        where = {
            "device": self.device.type, "model": device_name(self.device), "torch": str(torch.__version__),
            "threads": self.params.compute.threads, "ranks": self.settings.ranks,
        }  # fmt: skip
        return Checkpoint(
            folder / self.digest, where, elsewhere=self.params.compute.resume_elsewhere
        )

    def make_method(self) -> Method:
        """Encoder and heads with their first weights, on the device."""
        p = self.params
        network = (self.settings.backbone, p.recipe.seen)
        if self.start is not None:
            encoder = self.start.make(*network, self.settings.patch_size)
        else:
            encoder = networks.make_encoder(
                *network,
                patch_size=self.settings.patch_size,
                init_key=keyed.key_of("init", self.seed_key),
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed.key_of("heads", self.seed_key) % 2**63)
            method = self.kind(
                networks.in_parts(encoder, p.recipe.crop), self.settings, p.recipe.seen
            )
            if self.known is not None:
                method.know(self.known)
        if self.start is not None:
            self.start.hand_on(method.handed_on())
        optim.place(method, self.device)
        return method

    def train(
        self, checkpoint: Checkpoint, check: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Train to the last epoch (see `fewscans.attempts`); facts of the result."""
        attempts = Attempts(self, checkpoint, check)
        training, schedule = attempts.train()
        facts = self._facts(training, schedule, attempts.halved)
        if len(checkpoint.places) > 1:
            facts["flags"].append(ELSEWHERE)
        return {**facts, "places": checkpoint.places}

    def failed(self, error: engine.FailedError, lr: float) -> str:
        """What to say, and what to change, where a training has failed a second time."""
        name = self.params.encoder
        if isinstance(error, engine.CollapsedError):
            return (
                f"{name}: pretraining collapsed twice ({error}). Set `lr` below {lr:.2g}, a larger `batch_size` (now "
                f"{self.schedule.batch_size}) or a longer `warmup` (now {self.schedule.warmup:g}) in encoders.{name}, "
                "or `on_collapse: keep` to go on with what there is, flagged."
            )
        return (
            f"{name}: pretraining diverged twice ({error}). Set `lr` below {lr:.2g}, a longer `warmup` "
            f"(now {self.schedule.warmup:g}), or `clip_grad_norm: 1` in encoders.{name}."
        )

    def _facts(
        self, training: engine.Training, schedule: engine.Schedule, halved: bool
    ) -> dict[str, Any]:
        last = training.history[-1]
        flags = ["lr-halved"] if halved else []
        if schedule.accumulate > self.schedule.accumulate:
            flags.append(outofmemory.HALVED)
        if schedule.accumulate > 1 and self.kind.compares:
            flags.append(IN_PARTS)
        if "target" in self.settings.wants():
            flags.append(SAW_LABELS)
        if collapsed(last):
            log.warning(
                "%s: collapsed: embeddings hardly differ (spread %.3f, effective rank %.1f)",
                self.params.encoder, last["embedding_std"], last["effective_rank"],
            )  # fmt: skip
            flags.append("collapsed")
        if not all(bool(torch.isfinite(p).all()) for p in self.method.parameters()):
            raise UserError(
                self.failed(engine.DivergedError("weights are not finite"), schedule.lr)
            )
        self.history = training.history
        log.info(
            "%s: %d steps in %s", self.params.encoder, training.step, duration(training.seconds)
        )
        return {
            "flags": flags, "lr": schedule.lr, "steps": training.step, "steps_per_epoch": schedule.steps_per_epoch,
            "resolved": self.method.resolved(), "device_seconds": round(training.seconds * self.ranks.size, 3),
            "device_name": device_name(self.device), "loss": last["loss"],
            "network": self.method.encoder.fewscans_network, "accumulate": schedule.accumulate,
            "handed_on": sorted(self.method.handed_on()),
            "skipped_steps": 0 if training.scaler is None else int(training.scaler.skipped),
        }  # fmt: skip

    def write(self, folder: Path, facts: dict[str, Any]) -> None:
        """The files that the cache keeps."""
        networks.save_encoder(folder / WEIGHTS, self.method.encoder)
        for name, part in self.method.handed_on().items():
            networks.save_encoder(folder / f"{name}.safetensors", part)
        write_table(folder / HISTORY, "history", pd.DataFrame(self.history))
        write_pictures(folder, self.method, self.resident, self.seed_key)
        write_json(folder / FACTS, facts)

    def describe(self, facts: dict[str, Any]) -> dict[str, Any]:
        """encoder.json: what made this encoder, what it takes, and whom it has seen."""
        p = self.params
        hashed = [
            hashlib.sha256(group.encode()).hexdigest()[:16]
            for group in self.sources.excluded_groups
        ]
        return {
            "name": p.encoder, "method": self.settings.method, "dataset": p.dataset, "fold": p.fold, "seed": p.seed,
            "base_seed": p.base_seed,
            "settings": self.resolved
            | facts["resolved"]
            | {"lr": facts["lr"], "accumulate": facts["accumulate"]},
            "network": facts["network"],
            "input": {**p.recipe.seen.facts(), "range": [0.0, 1.0]},
            **({"part_of": p.recipe.shape.facts()} if p.recipe.crop else {}),
            "transductive": self.settings.transductive, "flags": facts["flags"],
            "source_scans": self.sources.scans, "n_scans": len(self.sources.scans),
            "scans_digest": digest(self.sources.scans), "excluded_groups": sorted(hashed),
            **({FITTED: self.sources.fitted} if self.sources.fitted else {}),
            "steps": facts["steps"], "epochs": self._epochs(), "loss": facts["loss"],
            "device": self.device.type, "device_name": facts["device_name"], "threads": p.compute.threads,
            "precision": self.schedule.precision, "skipped_steps": facts["skipped_steps"],
            "handed_on": facts["handed_on"],
            "device_seconds": facts["device_seconds"], "versions": versions(),
            "code": self._identity()["code"], "digest": self.digest,
            "parent": self.start.digest if self.start is not None else None,
            "parents": [self.start.facts] if self.start is not None else [],
        }  # fmt: skip


def device_name(device: torch.device) -> str:
    """Model of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of the packages that compute."""
    return {name: version(name) for name in ("torch", "timm", "numpy")}
