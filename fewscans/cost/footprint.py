"""Memory and disk of each rule's jobs, by the formulas of `fewscans.cost.sizes`."""

from __future__ import annotations

import math

from fewscans.config.encoders import PretrainSettings
from fewscans.cost import sizes
from fewscans.cost.work import ASSUMED, Work
from fewscans.plan import Plan
from fewscans.rawdata import chunks_of


class Footprint:
    """Of the jobs of a plan."""

    def __init__(self, plan: Plan, work: Work) -> None:
        self.plan, self.work = plan, work

    def memory(self, rule: str, encoder: str, recipe: str, dataset: str) -> float:
        """MB that a job is expected to use."""
        scans = ((self.work.counts(dataset) if dataset else None) or ASSUMED).scans
        if rule in ("pretrain", "finetune"):
            return self._training(rule, encoder, recipe, dataset, scans)
        if rule == "weights":
            return (
                sizes.TORCH_MB
                + 12 * sizes.weights(self.plan.encoders[encoder].settings.backbone)[0]
            )
        if rule == "audit":
            return sizes.PLAIN_MB + 0.035 * scans
        if rule == "normalise":
            return sizes.PLAIN_MB + sizes.store_mb(scans, self.plan.recipes[recipe])
        if rule in ("aggregate", "learns", "report"):
            return sizes.PLAIN_MB + 200 + 0.25 * sum(1 for _ in self.plan.runs())
        return sizes.PLAIN_MB + 0.01 * scans

    def _training(self, rule: str, encoder: str, recipe: str, dataset: str, scans: int) -> float:
        if self.plan.protocols(encoder) == ["prior"]:
            return sizes.PLAIN_MB
        tuned = self.plan.config.protocol_settings.finetune
        images = tuned.batch_size / tuned.accumulate
        if rule == "pretrain":
            scans, views = self.work.seen(encoder, dataset), self.views(encoder, recipe)
            images = self.work.schedule(encoder, dataset)[1] * views
            # One micro-batch at a time.
            images /= getattr(self.plan.encoders[encoder].settings, "accumulate", 1)
        backbone = self.plan.encoders[encoder].settings.backbone
        shape = self.plan.recipes[recipe]
        return sizes.training_mb(backbone, shape, images, scans, self.work.device)

    def views(self, encoder: str, recipe: str) -> float:
        """Images of full size that a step makes of one scan."""
        settings = self.plan.encoders[encoder].settings
        ndim = self.plan.recipes[recipe].ndim
        return settings.images(ndim) if isinstance(settings, PretrainSettings) else 1

    def output(self, rule: str, encoder: str, recipe: str, dataset: str) -> tuple[int, int]:
        """(MB, files) that a job leaves behind, its log, benchmark and cache entries counted."""
        counts = (self.work.counts(dataset) if dataset else None) or ASSUMED
        n, mb, files = counts.scans, 0.05, 3
        if rule == "phantom":
            mb, files = 0.018 * n, n + 3
        elif rule == "convert":
            chunks = chunks_of(self.plan.config, dataset)
            phantom = self.plan.config.datasets[dataset].phantom is not None
            mb, files = n / chunks * (0.021 if phantom else sizes.NATIVE_MB), 4
        elif rule == "export":
            mb, files = n * sizes.NATIVE_MB, n + 3
        elif rule == "normalise":
            mb, files = sizes.store_mb(n, self.plan.recipes[recipe]) + 1e-4 * n, 5
        elif rule == "audit":
            mb, files = 0.2 + 2e-4 * n, 6
        elif rule == "audit_page":
            mb, files = 2.5, 8
        elif rule in ("pretrain", "weights"):
            mb, files = sizes.encoder_mb(self.plan.encoders[encoder].settings.backbone), 17
        elif rule == "finetune":
            mb, files = self._finetune_output(encoder, dataset, counts.held_out(self.work.folds), n)
        elif rule == "shareable":
            jobs = sum(1 for _ in self.plan.runs())
            mb, files = (
                3.0 * len(self.plan.evaluated) + 0.05 * jobs,
                jobs + 25 * len(self.plan.evaluated),
            )
        elif rule in ("aggregate", "report"):
            jobs = sum(1 for _ in self.plan.runs())
            mb = 0.5 + 0.002 * jobs if rule == "aggregate" else 3.0 * len(self.plan.evaluated)
            files = 8 if rule == "aggregate" else 3 + 21 * len(self.plan.evaluated)
        return math.ceil(mb), files

    def scratch(self, rule: str, encoder: str) -> int:
        """MB that a job holds while it runs, beside its output: checkpoints of a pretraining."""
        if rule != "pretrain":
            return 0
        backbone = self.plan.encoders[encoder].settings.backbone
        return math.ceil(sizes.CHECKPOINTS * sizes.checkpoint_mb(backbone))

    def _finetune_output(
        self, encoder: str, dataset: str, tested: int, scans: int
    ) -> tuple[float, int]:
        protocols = len(self.plan.protocols(encoder))
        budgets = list(self.work.labelled(dataset))
        runs = protocols * sum(budget.runs for budget in budgets)
        labelled = max((budget.scans for budget in budgets), default=0)
        backbone = self.plan.encoders[encoder].settings.backbone
        mb = sizes.predictions_mb(runs, tested, labelled) + sizes.embeddings_mb(scans, backbone)
        # A cache entry is a folder with a file and its facts.
        return mb, 8 + 2 * (runs + 1)
