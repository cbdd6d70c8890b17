"""What one might do about a plan, in plain words. Advice is given where it saves something worth having."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fewscans.forecast.place import PACKED, Place
from fewscans.forecast.words import amount, count, duration

# Less than this is not worth a line.
WORTH_S = 300.0
# Members of a pack wait for each other; more than this is not advised.
MOST_PACKED = 64


def advise(plan: dict[str, Any], place: Place) -> list[str]:
    """Sentences, the most useful first."""
    if not plan["totals"]["jobs"]:
        return []
    return [
        *_unknown(plan, place),
        *_machines(plan),
        *_start_up(plan, place),
        *_limits(plan, place),
        *_chain(plan),
    ]


def _unknown(plan: dict[str, Any], place: Place) -> Iterator[str]:
    number = plan["totals"]["jobs_of_unknown_length"]
    if number:
        kind = "a GPU node" if place.cluster else "this machine"
        yield (
            f"{count(number, 'job')} of unknown length: counted as nothing in the times above. "
            f"`fewscans calibrate` on {kind} finds it out."
        )


def _machines(plan: dict[str, Any]) -> Iterator[str]:
    """From which number of GPUs (or cores) on more of them gain less than a tenth."""
    walls = [wall for wall in plan["wall_times"] if wall["wall_s"] is not None]
    if len(walls) < 2 or walls[0]["wall_s"] - walls[-1]["wall_s"] < WORTH_S:
        return
    word = "GPUs" if walls[0]["kind"] == "gpus" else "cores"
    best = walls[-1]["wall_s"]
    enough = next(wall for wall in walls if wall["wall_s"] <= 1.1 * best)
    if enough is not walls[-1]:
        yield (
            f"More than {enough['count']} {word} gain little: {duration(enough['wall_s'])} with "
            f"{enough['count']}, {duration(best)} with {walls[-1]['count']}."
        )


def _start_up(plan: dict[str, Any], place: Place) -> Iterator[str]:
    if not place.cluster:
        return
    packed = [rule for rule in plan["rules"] if rule["rule"] in PACKED and rule["jobs"] > 1]
    for rule in packed:
        work = (rule["expected_p50_s"] or 0.0) * place.pack(rule["rule"])
        if 0 < work < 3 * place.terms.in_job_s and place.pack(rule["rule"]) < MOST_PACKED:
            wanted = round(10 * place.terms.in_job_s / rule["expected_p50_s"])
            size = min(MOST_PACKED, max(2, wanted))
            yield (
                f"{rule['rule']}: a job works {duration(rule['expected_p50_s'])} and takes "
                f"{duration(place.terms.in_job_s)} to start. `pack: {size}` in the site file lets "
                f"{size} share a submission."
            )


def _limits(plan: dict[str, Any], place: Place) -> Iterator[str]:
    """Short limits start sooner: the scheduler fits them into gaps."""
    if not place.cluster:
        return
    for rule in plan["rules"]:
        if rule["rule"] == "tune":  # waits for its trials, and nobody knows how long these wait
            continue
        limit, slow = rule["time_limit_min"], rule["expected_p95_s"]
        if limit and slow and limit[1] * 60 > 6 * slow and limit[1] >= 60:
            asked, likely = duration(limit[1] * 60), duration(slow)
            yield (
                f"{rule['rule']}: asks for {asked} and needs {likely} at most. Shorter limits start "
                "sooner."
            )


def _chain(plan: dict[str, Any]) -> Iterator[str]:
    chain, totals = plan["critical_path"], plan["totals"]
    if totals["wall_s"] < WORTH_S or chain["wall_s"] < 0.8 * totals["wall_s"]:
        return
    share = chain["longest_s"] / chain["wall_s"]
    if share > 0.5:
        yield (
            f"One {chain['longest_rule']} job is {amount(100 * share)} % of the longest chain: "
            "only a shorter one makes the whole shorter."
        )
