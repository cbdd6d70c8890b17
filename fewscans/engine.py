"""The loop of self-supervised pretraining: batches of resident scans, steps, schedule, checkpoints, gauges.

It knows no method by name and no file but the checkpoint. A training goes on from its last checkpoint with the same
bytes: every random number is keyed by epoch and scan, so the state is weights, optimizer and position alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans import keyed, optim
from fewscans.average import Average
from fewscans.batchnorm import make_global
from fewscans.distributed import ALONE, Ranks
from fewscans.gauges import N_SEEN, collapse_gauges, collapsed, memory_mb
from fewscans.known import Known
from fewscans.methods.base import Method
from fewscans.methods.batch import Batch, Scans
from fewscans.progress import Progress
from fewscans.resident import Resident
from fewscans.scaler import Scaler

# The first checkpoint of a start comes early: it tells what one costs, before a deadline has to be met.
FIRST_SAVE_S = 20.0


# Looks in a training; the embedding's gauges alone are taken in each epoch.
LOOKS = 20
# Further gauges are taken at each look where a training is long. A step is some six passes through the network (two
# views, forward and backward), and these are three of `N_SEEN` scans at most: they may take this share of the time, but
# are taken `FEWEST` times.
GAUGE_SHARE, FEWEST = 0.02, 4
NOT_LOOKED = dict.fromkeys(("alignment", "uniformity", "knn_balanced_accuracy"), float("nan"))
# Share of the steps before which no training is called collapsed.
SETTLED = 0.1


class FailedError(Exception):
    """A training that does not become one by going on."""

    what = "failed"


class DivergedError(FailedError):
    """The loss is no number any more."""

    what = "diverged"


class CollapsedError(FailedError):
    """All scans have the same embedding, at two looks one after the other."""

    what = "collapsed"


class StoppedError(Exception):
    """Asked to stop from outside; the state is saved."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    epochs: int
    batch_size: int
    steps_per_epoch: int
    lr: float
    weight_decay: float
    warmup: float
    clip_grad_norm: float | None
    seed_key: int
    precision: str
    optimizer: str = "adamw"
    momentum: float = 0.9
    accumulate: int = 1
    ema: float | None = None
    steps: int | None = None
    """In all; without it those of `epochs`."""
    sync_batchnorm: bool = True

    @property
    def n_steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.steps_per_epoch if self.steps is None else self.steps


class Training:
    """One method on one set of scans, step by step.

    Parameters
    ----------
    method
        On its device.
    resident
        The scans, on the same device.
    known
        What is known of the scans beside their pixels, for methods that ask.
    save
        Called with the state when a checkpoint is due.
    keep
        Called with a sound state, at steps that follow from the schedule.
    looks
        Further gauges, `LOOKS` times or fewer (`gauged_looks`); called by the first rank.
    stop_collapsed
        Whether a collapse ends the training.
    checkpoint_s
        Seconds between checkpoints; the first one of a start comes after `FIRST_SAVE_S` at the latest.
    should_stop
        Asked after each step; the state is saved before `StoppedError`.
    ranks
        Processes that share the training: each takes its part of a batch, the first one saves.
    """

    def __init__(
        self,
        method: Method,
        resident: Resident,
        schedule: Schedule,
        *,
        known: Known | None = None,
        save: Callable[[dict[str, Any]], None] = lambda state: None,
        keep: Callable[[dict[str, Any]], None] = lambda state: None,
        looks: Callable[[Method], dict[str, float]] = lambda method: {},
        stop_collapsed: bool = False,
        checkpoint_s: float = float("inf"),
        should_stop: Callable[[], bool] = lambda: False,
        label: str = "",
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        if ranks.size > 1:
            method.gather = ranks.gather
            if schedule.sync_batchnorm:
                make_global(method)
                method.gather_for_norms = ranks.gather
        self.method, self.resident, self.schedule = method, resident, schedule
        known = known or Known.nothing(len(resident))
        self.scans = Scans(resident.keys, resident.batch, known, method.shape.size)
        self.save, self.checkpoint_s, self.should_stop, self.label = (
            save,
            checkpoint_s,
            should_stop,
            label,
        )
        self.keep, self.looks, self.stop_collapsed = keep, looks, stop_collapsed
        method.begin(len(resident), schedule.batch_size, schedule.n_steps)
        s = schedule
        self.optimizer = optim.make_optimizer(
            method, s.lr, s.weight_decay, method.betas, kind=s.optimizer, momentum=s.momentum
        )
        self.scaler = optim.make_scaler(resident.device, s.precision)
        self.average = None if s.ema is None else Average(method, s.ema, method.encoder)
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self._total = torch.zeros((), device=resident.device)
        self._epoch_seconds = 0.0
        self._order: NDArray[np.int64] | None = None

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on with the same bytes."""
        return {
            "method": self.method.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
            "seconds": self.seconds, "epoch_seconds": self._epoch_seconds, "total": self._total,
            "history": self.history,
            "scaler": self.scaler and self.scaler.state_dict(),
            "average": self.average and self.average.state_dict(),
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self._epoch_seconds, self.history = state["epoch_seconds"], state["history"]
        self._total = state["total"].to(self.resident.device)
        for part, name in ((self.scaler, "scaler"), (self.average, "average")):
            if part is not None:
                part.load_state_dict(state[name])

    def run(self) -> None:
        """Train to the end of the schedule.

        Raises
        ------
        DivergedError
            The loss or the weights' gradients are not finite at the end of an epoch.
        CollapsedError
            The embeddings of all scans are alike.
        StoppedError
            `should_stop` said so.
        """
        self.method.train()
        saved = time.monotonic()
        due_s = min(self.checkpoint_s, FIRST_SAVE_S)
        n = self.schedule.n_steps
        images = self.schedule.batch_size
        bar = Progress(
            n, images_per_step=images, label=self.label, done=self.step, shown=self.ranks.leads
        )
        # Dropout, where a network has it, draws from the global stream: keep it ours, and leave it as it was.
        with bar, torch.random.fork_rng(devices=_devices(self.resident.device)):
            while self.step < n:
                began = time.perf_counter()
                loss, gauges = self._one_step()
                self._spend(time.perf_counter() - began)
                self.step += 1
                self.method.after_step(self.step, n)
                if self.average is not None:
                    self.average.update(self.step)
                if self.step % self.schedule.steps_per_epoch == 0 or self.step == n:
                    self._end_epoch(gauges)
                bar.step(self.step, loss.item)
                due = time.monotonic() - saved >= due_s
                stopping, due = self.ranks.any(self.should_stop(), due)
                if self.step < n and (stopping or due):
                    self.ranks.first(lambda: self.save(self.state()))
                    saved, due_s = time.monotonic(), self.checkpoint_s
                    if stopping:
                        raise StoppedError
        if self.average is not None:  # what is kept
            self.average.swap()

    def batch(self, step: int) -> Batch:
        """Scans of a step (this rank's share): a keyed shuffle of each epoch, the incomplete last batch left out."""
        return self.scans.batch(*self._rows(step), self.schedule.seed_key)

    def _parts(self) -> Iterator[tuple[tuple[Tensor, ...], float]]:
        """Views of each micro-batch of the step, made when it is its turn, and its share of the batch."""
        rows, epoch = self._rows(self.step)
        pieces = np.array_split(rows, self.schedule.accumulate)
        for i, some in enumerate(pieces):
            batch = self.scans.batch(some, epoch, self.schedule.seed_key)
            views = self.method.views(batch)
            if i + 1 < len(pieces):
                self.resident.expect(pieces[i + 1])
            elif self.step + 1 < self.schedule.n_steps:
                after = self._rows(self.step + 1)[0]
                self.resident.expect(np.array_split(after, self.schedule.accumulate)[0])
            yield views, len(some) / len(rows)

    def _rows(self, step: int) -> tuple[NDArray[np.int64], int]:
        """(rows of this rank's share of a step, epoch)."""
        epoch, position = divmod(step, self.schedule.steps_per_epoch)
        if position == 0 or self._order is None:
            self._order = keyed.permutation(self.schedule.seed_key, epoch, self.resident.keys)
        first = position * self.schedule.batch_size
        index = self.ranks.share(self._order[first : first + self.schedule.batch_size])
        return index, epoch

    def _one_step(self) -> tuple[Tensor, dict[str, Tensor]]:
        s = self.schedule
        lr = optim.lr_at(self.step, s.n_steps, s.warmup, s.lr)
        optim.set_lr(self.optimizer, lr)
        decay = optim.weight_decay_at(
            self.step, s.n_steps, s.weight_decay, self.method.weight_decay_growth
        )
        optim.set_weight_decay(self.optimizer, decay)
        share = [self.ranks.rank] if self.ranks.size > 1 else []
        torch.manual_seed(keyed.key_of("step", s.seed_key, self.step, *share) % 2**63)
        loss, gauges = step_in_parts(
            self.method, self.optimizer, self._parts(), s.precision, s.clip_grad_norm, self.ranks,
            self.scaler,
        )  # fmt: skip
        self._total += loss
        return loss, {**gauges, "lr": torch.tensor(lr)}

    def _spend(self, seconds: float) -> None:
        self.seconds += seconds
        self._epoch_seconds += seconds

    def _end_epoch(self, gauges: dict[str, Tensor]) -> None:
        """A row of history, the last one perhaps of a part; the only place where the device is waited for."""
        began = time.perf_counter()
        s = self.schedule
        done = self.step - int(self.history[-1]["step"] if self.history else 0)
        loss = float(self._total) / done
        grad_norm = float(gradient_norm(self.method))
        finite = bool(np.isfinite(grad_norm))
        left_out = not finite and self.scaler is not None and not self.scaler.exhausted
        if not np.isfinite(loss) or not (finite or left_out):
            raise DivergedError(f"loss {loss}, gradient norm {grad_norm} at step {self.step}")
        spread, rank = collapse_gauges(self.ranks.gather(gauges["embedding"]))
        self._spend(time.perf_counter() - began)
        images_per_s = s.batch_size * done / max(self._epoch_seconds, 1e-9)
        self.history.append({
            "step": self.step, "epoch": self.step / s.steps_per_epoch, "loss": loss, "lr": float(gauges["lr"]),
            "grad_norm": float("nan") if left_out else grad_norm, "embedding_std": spread, "effective_rank": rank,
            "images_per_s": images_per_s, "memory_mb": memory_mb(self.resident.device), **NOT_LOOKED,
        })  # fmt: skip
        self._epoch_seconds = 0.0
        self._total = torch.zeros_like(self._total)
        if self._is_look(self.step):
            began = time.perf_counter()
            self._look()
            self.seconds += time.perf_counter() - began

    def _is_look(self, step: int, of: int = LOOKS) -> bool:
        """Whether the end of the epoch at `step` is one of about `of`, evenly spread, or the last."""
        s = self.schedule
        look = max(1, s.epochs // LOOKS)
        every = look * max(1, s.epochs // of // look)
        return step % (every * s.steps_per_epoch) == 0 or step == s.n_steps

    def _look(self) -> None:
        """Further gauges; keep the state where it is sound, and raise where it has not been so for two looks."""
        row = self.history[-1]
        gauged = gauged_looks(self.schedule, len(self.resident))
        if self.ranks.leads and self._is_look(self.step, gauged):
            row.update(self.looks(self.method))
        if not collapsed(row):
            if self.step < self.schedule.n_steps:
                self.ranks.first(lambda: self.keep(self.state()))
            return
        before = [one for one in self.history[:-1] if self._is_look(int(one["step"]))]
        settled = before and before[-1]["step"] >= SETTLED * self.schedule.n_steps
        if self.stop_collapsed and settled and collapsed(before[-1]):
            raise CollapsedError(
                f"embeddings have spread {row['embedding_std']:.2g}, effective rank {row['effective_rank']:.1f} at step"
                f" {self.step}"
            )


def gauged_looks(schedule: Schedule, n_scans: int) -> int:
    """How many of the `LOOKS` take further gauges in a training on `n_scans`."""
    passes = 6 * schedule.n_steps * schedule.batch_size
    affordable = GAUGE_SHARE * passes / (3 * min(n_scans, N_SEEN))
    return int(min(LOOKS, max(FEWEST, affordable)))


def train_step(
    method: Method,
    optimizer: torch.optim.Optimizer,
    views: tuple[Tensor, ...],
    precision: str = "fp32",
    clip_grad_norm: float | None = None,
    ranks: Ranks = ALONE,
    scaler: Scaler | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Forward, backward and step on views that are there; detached loss (of all ranks) and gauges (of this one)."""
    return step_in_parts(
        method, optimizer, [(views, 1.0)], precision, clip_grad_norm, ranks, scaler
    )


def step_in_parts(
    method: Method,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[tuple[tuple[Tensor, ...], float]],
    precision: str = "fp32",
    clip_grad_norm: float | None = None,
    ranks: Ranks = ALONE,
    scaler: Scaler | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`train_step` on micro-batches: views and share of the batch of each; gauges of all scans."""
    losses, found = [], []
    for part, (views, share) in enumerate(parts):
        method.part = part
        with optim.autocast(views[0].device, precision):
            loss, gauges = method.loss(*views)
        if part == 0:
            optimizer.zero_grad(set_to_none=True)
        if share != 1:
            loss = loss * share
        (loss if scaler is None else scaler.scale(loss)).backward()
        losses.append(loss.detach())
        found.append(gauges)
    method.part = 0
    total = ranks.average(method, losses[0] if len(losses) == 1 else torch.stack(losses).sum())
    optim.step(optimizer, method, clip_grad_norm, scaler)
    return total, found[0] if len(found) == 1 else _joined(found)


def _joined(gauges: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Gauges of micro-batches as those of their batch: rows one after the other, single numbers averaged."""
    return {
        name: torch.stack(made).mean(dim=0) if made[0].ndim == 0 else torch.cat(made)
        for name in gauges[0]
        for made in [[one[name] for one in gauges]]
    }


def gradient_norm(method: Method) -> Tensor:
    """Norm of all gradients of the last step (after clipping)."""
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def _devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
