"""What a search costs, before it runs: its trials are no jobs of the DAG, so the rule says it for them.

A trial is taken to lie in the middle of its space and never to be pruned. Light: rules read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fewscans.cost.model import SPREAD, Estimate, Model
from fewscans.cost.resources import FACTOR, LEAST_MIN, START_MIN, UNKNOWN_MIN, RuleResources
from fewscans.cost.work import Rough
from fewscans.plan import Plan
from fewscans.tune.searches import arm_of, tune_params
from fewscans.tune.space import changed, middle, protocol_changed

# Looks at a pretraining; inner folds at most.
LOOKS, INNER = 4, 5
# The process that waits: it has torch in memory to read the store.
LEADER_MB = 1500
# Minutes that it asks for where the partition has no limit; near the end it requeues itself.
LEADER_MIN = 1440


class TuneResources:
    """Resources of the rule `tune` of a plan.

    Parameters
    ----------
    cost
        Estimates of the plan, and the site.
    """

    def __init__(self, cost: RuleResources) -> None:
        self.cost, self.plan, self.site = cost, cost.plan, cost.site
        self._models: dict[tuple[str, bool], Model] = {}

    def of(self) -> dict[str, Any]:
        """The `resources:`, as functions of wildcards."""
        names = (
            *("gpu", "mem_mb", "runtime", "expected_s", "expected_p95_s", "expected_from"),
            *("trials", "trial_s", "trial_gpu_s", "trial_minutes", "trial_mem_mb", "scratch_mb"),
        )

        def told(name: str) -> Callable[[Any], Any]:
            return lambda wildcards: self.numbers(
                wildcards.encoder, wildcards.recipe, wildcards.dataset
            )[name]

        return {**{name: told(name) for name in names}, "output_mb": 1, "output_files": 2}

    def numbers(self, encoder: str, recipe: str, dataset: str) -> dict[str, Any]:
        """Everything that is asked for and told of one search."""
        tune = self.plan.config.tune
        assert tune is not None
        usual = self.trial(encoder, recipe, dataset)
        longest = self.trial(encoder, recipe, dataset, longest=True)
        rounds = -(-tune.trials // tune.parallel)
        minutes = (
            max(LEAST_MIN["gpu"], math.ceil(START_MIN + FACTOR * longest.p95 / 60))
            if longest.known
            else UNKNOWN_MIN["gpu"]
        )
        gpu = self.cost.model.work.device == "cuda"
        seconds = max(1, round(usual.seconds)) if usual.known else 0
        here = self.site is None
        return {
            "gpu": tune.parallel if here and self.plan.config.compute.device != "cpu" else 0,
            "mem_mb": LEADER_MB + (tune.parallel * usual.mem_mb if here else 0),
            "runtime": self._leader_minutes(rounds * minutes),
            "expected_s": rounds * seconds,
            "expected_p95_s": rounds * math.ceil(usual.p95),
            "expected_from": usual.source,
            "trials": tune.trials,
            "trial_s": seconds,
            "trial_gpu_s": tune.trials * seconds if gpu and not here else 0,
            "trial_minutes": minutes,
            "trial_mem_mb": usual.mem_mb,
            "scratch_mb": tune.parallel * longest.scratch_mb,
        }

    def _leader_minutes(self, wanted: int) -> int:
        partition = self.site.partition("light") if self.site is not None else None
        limit = partition.max_runtime if partition is not None else None
        # Trials wait in the queue too, and nobody knows how long.
        return min(limit or LEADER_MIN, max(2 * wanted, LEADER_MIN))

    def trial(self, encoder: str, recipe: str, dataset: str, *, longest: bool = False) -> Estimate:
        """One trial, in the middle of the space or at its far end."""
        arm = arm_of(self.plan, encoder)
        assert arm is not None
        model = self._model(encoder, longest)
        work, machine = model.work, model.machine("finetune")
        found = Rough(machine)
        source, p95, held_mb = "", 0.0, 0
        if model.plan.encoders[encoder].pretrained:
            before = model.of("pretrain", encoder, recipe, dataset)
            found.seconds, found.known, source = before.seconds, before.known, before.source
            p95 = before.p95
            held_mb = before.scratch_mb + before.output_mb  # a trial's encoder goes when it ends
        else:
            found.seconds = machine.startup.get("torch", 4.2)
        began = found.seconds
        labelled = next(iter(work.labelled(dataset)))
        one = type(labelled)(labelled.scans, 1)
        for _ in range(INNER if arm.protocol == "finetune" else LOOKS):
            work.protocol(found, arm.protocol, encoder, recipe, dataset, one, labelled.scans)
        known = found.known and work.counts(dataset) is not None
        source = source or ("declared" if machine.declared else "scaled")
        memory = model.of("pretrain" if model.plan.encoders[encoder].pretrained else "finetune",
                          encoder, recipe, dataset).mem_mb  # fmt: skip
        if not known:
            return Estimate(0.0, 0.0, "unknown", memory, 0, 0, held_mb)
        source = "scaled" if source.startswith("measured") else source  # of settings near by
        p95 = max(p95, began) + (found.seconds - began) * SPREAD[source]
        p95 = max(p95, found.seconds * SPREAD[source])
        return Estimate(found.seconds, p95, source, memory, 0, 0, held_mb)

    def _model(self, encoder: str, longest: bool) -> Model:
        """Estimates of a plan in which this encoder has a trial's settings."""
        if (encoder, longest) not in self._models:
            self._models[encoder, longest] = self._make_model(encoder, longest)
        return self._models[encoder, longest]

    def _make_model(self, encoder: str, longest: bool) -> Model:
        plan, old = self.plan, self.cost.model
        params = tune_params(plan, encoder, next(iter(plan.recipes)), plan.evaluated[0])
        values = middle(params, longest=longest)
        made = replace(plan.encoders[encoder], settings=changed(params.settings, values, "encoder"))
        protocols = protocol_changed(plan.config.protocol_settings, params.arm.protocol, values)
        config = plan.config.model_copy(update={"protocol_settings": protocols})
        other = Plan(
            config,
            recipes=plan.recipes,
            encoders={**plan.encoders, encoder: made},
            pairs=plan.pairs,
            arms=plan.arms,
        )
        return Model(other, old.history, old.machines)
