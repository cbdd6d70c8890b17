"""All weights trained on the labelled scans: encoder and linear head, warm-up and cosine.

With inner folds, the number of steps is chosen: each inner model is trained along the whole
schedule and looked at after a quarter, a half, three quarters and all of it; the final model
follows the same schedule over all labelled scans and stops at the best of these. Early candidates
are thus read off before their learning rate has come down, which favours the end a little: the
price of one training per inner fold instead of four.

Classes are drawn equally often (`balanced`), which tells the network that they are equally
frequent; the frequencies of the labelled scans are put back into its logits (Saerens et al. 2002;
Menon et al. 2021, section 4.1), so that its probabilities mean the same as those of the other
protocols.

Shapes: B batch, n labelled, m test scans, K classes, S steps, E embedding.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fewscans import augment, keyed, networks, optim, outofmemory
from fewscans.average import Average
from fewscans.config.models import FinetuneSettings
from fewscans.errors import UserError
from fewscans.groups import layer_factors
from fewscans.protocols.task import Outcome, Task, common_flags, log_loss

log = logging.getLogger("fewscans")

FRACTIONS = (0.25, 0.5, 0.75, 1.0)
# Of the loss of a guess among the classes: less than this is converged, and a fall smaller than
# this is none.
SMALL = 0.1
MIX = {"mixup": augment.mixup, "cutmix": augment.cutmix}


def run(task: Task, settings: FinetuneSettings, source: Any) -> Outcome:
    """Probabilities of a fine-tuned network; test embeddings too, if not `source.frozen`.

    Flags: `no-inner-validation` where inner folds are wanted and not there, `not-converged` (see
    `still_falling`), `diverged` where the network gave no finite number; class frequencies then
    stand in its place; `oom-halved` where a batch did not fit the device and was cut.
    """
    wanted = settings.inner_folds > 0
    folds = task.inner_folds[: settings.inner_folds]
    stop, val_prob, choices = settings.steps, None, {"steps": settings.steps, "by": "setting"}
    asked = settings.accumulate
    if folds:
        stop, val_prob, choices, settings = _choose_steps(task, settings, source, folds)
    found: dict[int, NDArray[np.float64]] = {}
    everyone = np.arange(len(task.targets))

    def look(step: int, net: Classifier) -> None:
        found[step] = net.predict(source, task.test, _shift(task, everyone, settings))

    net, losses, settings = fitted(task, everyone, settings, source, [stop], look)
    flags, test_prob = [], found[stop]
    if settings.accumulate > asked:
        flags.append(outofmemory.HALVED)
        choices = {**choices, "accumulate": settings.accumulate}
    if not np.isfinite(test_prob).all():
        test_prob = np.tile(task.frequencies(), (len(task.test), 1))
        flags.append("diverged")
    flags += common_flags(task, test_prob)
    if wanted and not folds:
        flags.append("no-inner-validation")
    if stop == settings.steps and still_falling(losses, len(np.unique(task.targets))):
        flags.append("not-converged")
    embeddings = None
    if not source.frozen:
        embeddings = networks.embed(net.encoder, source.resident, task.test).astype(np.float16)
    return Outcome(test_prob, val_prob, choices, flags, embeddings)


def _choose_steps(
    task: Task, settings: FinetuneSettings, source: Any, folds: list[int]
) -> tuple[int, NDArray[np.float64], dict[str, Any], FinetuneSettings]:
    """(steps, [n, K] inner out-of-fold probabilities at them, choices, settings that fit the device)."""
    stops = sorted({max(1, round(fraction * settings.steps)) for fraction in FRACTIONS})
    shape = (len(task.targets), task.n_classes)
    prob = {stop: np.full(shape, np.nan) for stop in stops}
    asked = settings
    for fold in folds:
        among, held = task.split(fold)

        def look(step: int, net: Classifier, among: Any = among, held: Any = held) -> None:
            made = net.predict(source, task.labelled[held], _shift(task, among, asked))
            prob[step][held] = np.where(np.isfinite(made), made, task.frequencies(among))

        _, _, settings = fitted(task, among, settings, source, stops, look)
    losses = {stop: log_loss(prob[stop], task.targets) for stop in stops}
    best = min(stops, key=lambda stop: (round(losses[stop], 9), stop))
    choices = {
        "steps": best,
        "by": "inner-folds",
        "inner_loss": round(losses[best], 6),
        "inner_folds": len(folds),
    }
    return best, prob[best], choices, settings


class Classifier(nn.Module):
    """An encoder with a linear head; the head's first weights are keyed."""

    def __init__(self, encoder: nn.Module, n_classes: int, key: int) -> None:
        super().__init__()
        self.encoder = encoder
        width = networks.embedding_dim(encoder)
        self.head = nn.Linear(width, n_classes)
        # PyTorch's own range for a linear layer, from keyed numbers instead of a shared stream.
        rows = np.arange(n_classes, dtype=np.uint64)
        drawn = (2 * keyed.uniform(key, 0, rows, 0, width) - 1) / np.sqrt(width)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(np.asarray(drawn, dtype=np.float32)))
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, K] logits of `x` [B, C, H, W]."""
        return self.head(self.encoder(x))

    def predict(
        self,
        source: Any,
        positions: NDArray[np.int64],
        shift: NDArray[np.float64],
        batch: int = 256,
    ) -> NDArray[np.float64]:
        """[m, K] probabilities in evaluation mode, with `shift` [K] added to the logits."""
        was = self.training
        self.eval()
        batch = networks.at_once(self.encoder, source.resident, batch)
        with torch.inference_mode(), source.autocast():
            parts = outofmemory.in_batches(
                lambda some: self(source.resident.batch(some)).float(), positions, batch
            )
        self.train(was)
        logits = torch.cat(parts).cpu().numpy().astype(np.float64) + shift
        weight = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weight / weight.sum(axis=1, keepdims=True)


Look = Callable[[int, Classifier], None]


def fitted(
    task: Task,
    among: NDArray[np.int64],
    settings: FinetuneSettings,
    source: Any,
    stops: list[int],
    look: Look,
) -> tuple[Classifier, NDArray[np.float64], FinetuneSettings]:
    """What `train` gives, and the settings it was given: micro-batches halved, from the start, until they fit.

    Raises
    ------
    UserError
        Two scans at once do not fit.
    """
    while True:
        try:
            return *train(task, among, settings, source, stops, look), settings
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not outofmemory.is_out_of_memory(error):
                raise
        outofmemory.give_back()
        batch, parts = max(2, min(settings.batch_size, len(among))), settings.accumulate
        if batch // (2 * parts) < 2:
            raise UserError(
                f"fine-tuning: the device is out of memory with {batch // parts} scans at once. Set a smaller `size`, "
                "a smaller backbone, or use a device with more memory."
            )
        log.warning(
            "the device is out of memory with %d scans at once; once more with %d micro-batches (`accumulate: %d`)",
            batch // parts, 2 * parts, 2 * parts,
        )  # fmt: skip
        settings = settings.model_copy(update={"accumulate": 2 * parts})


def train(
    task: Task,
    among: NDArray[np.int64],
    settings: FinetuneSettings,
    source: Any,
    stops: list[int],
    look: Look,
) -> tuple[Classifier, NDArray[np.float64]]:
    """(network, [S] training losses) after `stops[-1]` steps on `among`; `look` at each stop."""
    net = Classifier(source.make_encoder(task.key), task.n_classes, keyed.key_of("head", task.key))
    net = optim.place(net, source.device)
    positions = task.labelled[among]
    targets = torch.from_numpy(task.targets[among]).to(source.device)
    keys = source.resident.keys[positions]
    # With one scan alone a batch would have one row, which batch norm cannot take: it is drawn
    # twice.
    batch = max(2, min(settings.batch_size, len(among)))
    order, turns = sample_order(
        task.targets[among], keys, task.key, stops[-1], batch, balanced=settings.balanced
    )
    policy = augment.policy(
        settings.strength, "supervised", settings.modality or "any", settings.augment.given
    )
    augment_key = keyed.key_of("supervised", task.key)
    # Micro-batches of two scans at least, however few there are.
    parts = max(1, min(settings.accumulate, batch // 2))
    optimizer = optim.make_optimizer(
        net,
        settings.lr,
        settings.weight_decay,
        kind=settings.optimizer,
        momentum=settings.sgd_momentum,
        factors=layer_factors(net.encoder, settings.layer_decay)
        if settings.layer_decay < 1
        else None,
    )
    scaler = optim.make_scaler(source.device, source.precision)
    average = None if settings.ema is None else Average(net, settings.ema)
    losses = torch.zeros(stops[-1], device=source.device)
    net.train()
    for step in range(stops[-1]):
        optim.set_lr(optimizer, optim.lr_at(step, settings.steps, settings.warmup, settings.lr))
        optimizer.zero_grad(set_to_none=True)
        pieces = [np.array_split(drawn, parts) for drawn in (order[step], turns[step])]
        for picked, turn in zip(*pieces, strict=True):
            x = source.resident.batch(positions[picked])
            x = augment.part(
                x, keys[picked], seed_key=augment_key, epoch=turn, side=networks.part_side(net.encoder)
            )  # fmt: skip
            x = augment.apply(
                x, keys[picked], seed_key=augment_key, epoch=turn, view=0, policy=policy
            )
            classes = targets[torch.from_numpy(picked).to(source.device)]
            mixed = None
            if settings.mix != "none":
                mixed = MIX[settings.mix](
                    x, keys[picked], seed_key=augment_key, epoch=turn, alpha=settings.mix_alpha
                )
            with source.autocast():
                logits = net(x if mixed is None else mixed.x)
            loss = mixed_loss(logits.float(), classes, mixed)
            if parts > 1:
                loss = loss * (len(picked) / batch)
            (loss if scaler is None else scaler.scale(loss)).backward()
            losses[step] += loss.detach()
        optim.step(optimizer, net, settings.clip_grad_norm, scaler)
        if average is not None:
            average.update(step + 1)
        if step + 1 in stops:
            with contextlib.nullcontext() if average is None else average.applied():
                look(step + 1, net)
    if average is not None:
        average.swap()
    return net, losses.cpu().numpy().astype(np.float64)


def mixed_loss(logits: Tensor, classes: Tensor, mixed: augment.Mixed | None) -> Tensor:
    """Cross entropy of `logits` [B, K]; of mixtures that of both scans' `classes` [B], by their shares."""
    if mixed is None:
        return functional.cross_entropy(logits, classes)
    own, other = (
        functional.cross_entropy(logits, one, reduction="none")
        for one in (classes, classes[mixed.partner])
    )
    return (mixed.share * own + (1 - mixed.share) * other).mean()


def sample_order(
    targets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    key: int,
    steps: int,
    batch: int,
    *,
    balanced: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[steps, batch] indices into the labelled scans, and the pass that each is drawn in.

    Classes come in turn. In every pass of a class each of its scans comes once, in an order keyed
    by (key, pass, scan); its augmentation is keyed by (key, pass, scan) too, so that a scan drawn
    twice in a step is seen two ways.
    """
    classes = np.unique(targets) if balanced else np.zeros(1, dtype=np.int64)
    order, turns = np.empty(steps * batch, dtype=np.int64), np.empty(steps * batch, dtype=np.int64)
    for i, one in enumerate(classes):
        members = np.flatnonzero(targets == one) if balanced else np.arange(len(targets))
        slots = np.arange(i, len(order), len(classes))
        n, n_passes = len(members), -(-len(slots) // len(members))
        passes = np.repeat(np.arange(n_passes), n)
        drawn = keyed.uniform(
            keyed.key_of("sample", key), passes, np.tile(keys[members], n_passes), 0, 1
        )
        shuffled = np.argsort(drawn.reshape(n_passes, n), axis=1, kind="stable")
        order[slots] = members[shuffled].ravel()[: len(slots)]
        turns[slots] = passes[: len(slots)]
    return order.reshape(steps, batch), turns.reshape(steps, batch)


def _shift(task: Task, among: NDArray[np.int64], settings: FinetuneSettings) -> NDArray[np.float64]:
    """[K] what brings equally drawn classes back to their frequencies; 0 if drawn as they come."""
    frequencies = task.frequencies(among)
    if not settings.balanced:
        return np.zeros(task.n_classes)
    with np.errstate(divide="ignore"):
        return np.log(frequencies)


def still_falling(losses: NDArray[np.float64], n_classes: int) -> bool:
    """Whether training ended too early.

    It did where the mean loss of the last quarter is above `SMALL` times that of a guess, and
    below that of the third quarter by more than `SMALL` of a guess and two standard errors. Needs
    16 steps.
    """
    quarter = len(losses) // 4
    if quarter < 4 or n_classes < 2:
        return False
    before, last = losses[-2 * quarter : -quarter], losses[-quarter:]
    guess = np.log(n_classes)
    noise = np.sqrt((before.var(ddof=1) + last.var(ddof=1)) / quarter)
    fall = before.mean() - last.mean()
    return bool(last.mean() > SMALL * guess and fall > SMALL * guess and fall > 2 * noise)
