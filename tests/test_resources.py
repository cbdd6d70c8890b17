"""What rules ask for: enough, never more than the partition has, and known before any file is."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fewscans.cluster import outcome
from fewscans.cluster.site import Site
from fewscans.config import load
from fewscans.cost import sizes
from fewscans.cost.history import History, Measured
from fewscans.cost.model import Estimate, Model
from fewscans.cost.resources import UNKNOWN_MIN, RuleResources
from fewscans.cost.retries import retries, starts
from fewscans.plan import RULES, expand

ROOT = Path(__file__).resolve().parents[1]
TOLD = {"expected_s", "expected_p95_s", "expected_from", "output_mb", "output_files"}
CONFIG: dict[str, Any] = {
    "datasets": {"p": {"phantom": {"n_patients": 40}}},
    "recipes": {"px48": {"size": 48}},
    "encoders": {"simclr": {"method": "simclr", "backbone": "test_resnet", "epochs": 10}},
}
SITE = {
    "classes": {"gpu": {"partition": "g"}, "cpu": {"min_mem_mb": 3000, "min_runtime": 45}},
    "partitions": {"c": {"default": True}, "g": {"max_runtime": 60, "max_mem_mb": 4000, "max_gpu": 1}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSCANS_CALIBRATION", str(tmp_path / "none.json"))
    monkeypatch.chdir(tmp_path)


def resources_of(
    site: dict[str, Any] | None = None, history: History | None = None, **changes: Any
) -> RuleResources:
    plan = expand(load({**CONFIG, **changes}, "config"))
    made = None if site is None else Site.model_validate(site)
    return RuleResources(plan, Model(plan, history or History(), {}), made)


def wildcards(**more: str) -> SimpleNamespace:
    return SimpleNamespace(encoder="simclr", recipe="px48", dataset="p", fold="0", seed="0", **more)


def asked(resources: RuleResources, rule: str = "pretrain", attempt: int = 1) -> tuple[int, int]:
    return resources.runtime(rule, wildcards(), attempt), resources.mem_mb(
        rule, wildcards(), attempt
    )


def call(value: Any) -> Any:
    """What a rule with these wildcards has: a number, or what its function says."""
    return value(wildcards()) if callable(value) else value


def long(resources: RuleResources, seconds: float, rss: float = 100.0) -> History:
    """A history in which pretraining took so long."""
    key, amount = resources.model.mark("pretrain", "simclr", "px48", "p")
    return History({key: [Measured(seconds, rss, amount)]})


def test_every_rule_tells_what_the_plan_reads():
    resources = resources_of()
    for rule, kind in RULES.items():
        of = resources.of(rule)
        assert set(of) >= {"gpu", "mem_mb", "runtime"} | TOLD
        if not rule.endswith("_ranks"):
            assert of["gpu"] == (1 if kind == "gpu" else 0)


def test_pretraining_tells_what_its_checkpoints_take():
    encoders = {"simclr": {**CONFIG["encoders"]["simclr"], "backbone": "resnet18", "ranks": 2}}
    resources = resources_of(encoders=encoders)
    held = {rule: resources.of(rule).get("scratch_mb") for rule in RULES}
    told = {rule: call(value) for rule, value in held.items() if value is not None}
    one = sizes.checkpoint_mb("resnet18")
    assert told == dict.fromkeys(("pretrain", "pretrain_ranks"), math.ceil(3 * one))


def test_rules_of_the_workflow_declare_their_own_resources():
    declared = defaultdict(list)
    for path in sorted((ROOT / "rules").glob("*.smk")):
        rule = ""
        for line in path.read_text().splitlines():
            found = re.match(r"\s*(?:use )?rule (?:\w+ as )?(\w+)(?::| with)", line)
            rule = found[1] if found else rule
            declared[rule] += re.findall(r"\*\*cost\(\"(\w+)\"\)", line)
    own = RULES.keys() - {"tune"}  # a search says itself what its trials take
    assert {rule: [rule] for rule in own} == {r: d for r, d in declared.items() if r in own}


def test_a_limit_has_room_above_what_is_expected():
    plain = resources_of()
    runtime, memory = asked(resources_of(history=long(plain, 3600.0, 2000.0)))
    assert runtime >= 90
    assert memory >= 2600


def test_unknown_jobs_get_the_time_of_their_class_and_say_so():
    resources = resources_of(compute={"device": "cuda"})
    of = resources.of("pretrain")
    assert asked(resources)[0] == UNKNOWN_MIN["gpu"]
    assert call(of["expected_from"]) == "unknown"
    assert (call(of["expected_s"]), call(of["expected_p95_s"])) == (0, 0)


def test_nothing_is_asked_for_beyond_the_partition():
    plain = resources_of(SITE)
    assert asked(resources_of(SITE, long(plain, 36000.0, 9000.0))) == (60, 4000)


def test_wishes_of_the_site_are_floors():
    of = resources_of(SITE).of("audit")
    assert (of["runtime"](wildcards(), 1), of["mem_mb"](wildcards(), 1)) == (45, 3000)


def test_more_is_asked_for_only_after_a_recorded_reason(monkeypatch):
    resources = resources_of(SITE)
    first = asked(resources)
    monkeypatch.setattr(outcome, "growth", lambda *_: (1.0, 1.0))
    assert asked(resources, attempt=3) == first
    monkeypatch.setattr(outcome, "growth", lambda *_: (1.5, 2.0))
    runtime, memory = asked(resources, attempt=2)
    assert (runtime, memory) == (pytest.approx(1.5 * first[0], abs=1), 2 * first[1])
    monkeypatch.setattr(outcome, "growth", lambda *_: (100.0, 100.0))
    assert asked(resources, attempt=2) == (60, 4000)


def test_functions_with_one_value_are_numbers_and_only_in_the_main_process():
    made = resources_of()
    assert isinstance(made.of("pretrain")["runtime"], int)  # one encoder: one value
    assert callable(made.of("finetune")["expected_s"])
    whole = {name: call(value) for name, value in made.of("pretrain").items() if name in TOLD}
    job = RuleResources(made.plan, made.model, whole=False).of("pretrain")
    assert all(callable(job[name]) for name in TOLD)
    assert whole == {name: call(job[name]) for name in TOLD}
    # Time and memory may grow with the attempt where there is a cluster.
    assert callable(resources_of(SITE).of("pretrain")["runtime"])


def test_ranks_have_a_gpu_each():
    encoders = {"simclr": {**CONFIG["encoders"]["simclr"], "ranks": 4}}
    of = resources_of(encoders=encoders).of("pretrain_ranks")
    assert of["gpu"](wildcards()) == 4


def test_packed_jobs_agree_in_text():
    # Snakemake refuses a group whose members differ in a resource that is text.
    plain = resources_of(SITE)
    key, amount = plain.model.mark("finetune", "simclr", "px48", "p")
    history = History({key: [Measured(50.0, 1.0, amount)]})
    alone, packed = resources_of(SITE, history), resources_of({**SITE, "pack": 4}, history)
    other = SimpleNamespace(**{**vars(wildcards()), "encoder": "majority"})
    text = "expected_from"
    assert alone.of("finetune")[text](wildcards()) != alone.of("finetune")[text](other)
    assert packed.of("finetune")[text] == "declared"


def test_a_pack_stays_below_the_limit_and_asks_for_no_spare_time_twice():
    alone, packed = resources_of(SITE), resources_of({**SITE, "pack": 8})
    one, member = asked(alone, "finetune")[0], asked(packed, "finetune")[0]
    assert one <= 8 * member <= 60
    assert member < one
    history = long(packed, 36000.0)
    key, amount = packed.model.mark("finetune", "simclr", "px48", "p")
    history.add(key, Measured(36000.0, 1.0, amount))
    assert 8 * asked(resources_of({**SITE, "pack": 8}, history), "finetune")[0] <= 60


# -- retries ---------------------------------------------------------------------------------------


def estimate(p95: float) -> Estimate:
    return Estimate(p95, p95, "scaled", 1, 1, 1)


def test_starts_follow_from_the_limit():
    assert [starts(s, 60) for s in (0, 2000, 3600, 36000)] == [1, 1, 2, 13]
    assert starts(1e9, None) == 1


def test_only_trainings_that_outlast_the_limit_have_their_own_retries():
    site = Site.model_validate(SITE)
    assert retries(site, "pretrain", [estimate(100), estimate(36000)]) == 14
    assert retries(site, "pretrain", [estimate(100)]) is None
    assert retries(site, "audit", [estimate(36000)]) is None
    assert retries(None, "pretrain", [estimate(36000)]) is None
