"""What has changed since an earlier plan: jobs, hours, what rules ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fewscans.forecast.text import table
from fewscans.forecast.words import amount, between, duration, size

TOTALS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "jobs": ("jobs", amount),
    "submissions": ("submissions", amount),
    "gpu_hours": ("GPU-hours", amount),
    "cpu_hours": ("CPU-hours", amount),
    "wall_s": ("wall time", duration),
    "jobs_of_unknown_length": ("jobs of unknown length", amount),
    "money": ("money", amount),
    "co2_kg": ("kg CO2", amount),
}
RULE: dict[str, tuple[str, Callable[[Any], str]]] = {
    "jobs": ("jobs", amount),
    "cpus": ("cores", between),
    "gpus": ("GPUs", between),
    "mem_mb": ("memory", lambda v: between(v, size)),
    "time_limit_min": ("time asked", lambda v: between([60 * m for m in v] if v else None, duration)),
    "expected_p50_s": ("usual time", duration),
    "partitions": ("partition", lambda v: "/".join(v) or "default"),
    "output_mb": ("disk", size),
}  # fmt: skip


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(rule or ``total``, what, before, now) for each difference that is more than rounding."""
    return [*_of_totals(old, new), *_of_rules(old, new)]


def _of_totals(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for key, (word, say) in TOTALS.items():
        before, now = old["totals"].get(key), new["totals"].get(key)
        if before != now and say(before) != say(now):
            yield "total", word, say(before), say(now)


def _of_rules(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    before = {rule["rule"]: rule for rule in old["rules"]}
    now = {rule["rule"]: rule for rule in new["rules"]}
    for name in [*now, *(rule for rule in before if rule not in now)]:
        if name not in before:
            yield name, "jobs", "0", amount(now[name]["jobs"])
        elif name not in now:
            yield name, "jobs", amount(before[name]["jobs"]), "0"
        else:
            for key, (word, say) in RULE.items():
                one, two = before[name].get(key), now[name].get(key)
                if one != two and say(one) != say(two):
                    yield name, word, say(one), say(two)


def diff_text(old: dict[str, Any], new: dict[str, Any], title: str) -> str:
    """The differences as a table."""
    found = changes(old, new)
    if not found:
        return f"Nothing has changed since {title}."
    lines = table(["rule", "what", "before", "now"], [list(row) for row in found], left=2)
    return "\n".join([f"Since {title}:\n", *lines])
