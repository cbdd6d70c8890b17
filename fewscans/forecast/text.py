"""The plan as text, at most 100 columns wide: words rather than abbreviations, numbers with units."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from fewscans.forecast.words import UNKNOWN, amount, between, brief, count, duration, size

WIDTH = 100
FULL = (
    "`fewscans plan` shows more, also as JSON, CSV and a picture; docs/plan.md says how to read it."
)


def plan_text(plan: dict[str, Any], *, full: bool = False) -> str:
    """The plan for people; `full` adds what a dry-run's end has no room for."""
    if not plan["totals"]["jobs"]:
        done = plan["totals"]["jobs_up_to_date"]
        return f"The plan: nothing to do{f', {done:,} jobs are up to date' if done else ''}."
    parts = [
        _head(plan),
        *table(_columns(plan), _rows(plan)),
        "",
        *_facts(plan, full),
        *_problems(plan),
        *_advice(plan),
    ]
    if not full:
        parts += ["", FULL]
    return "\n".join(parts)


def _head(plan: dict[str, Any]) -> str:
    totals, place = plan["totals"], plan["place"]
    done = totals["jobs_up_to_date"]
    where = "on this machine"
    if place["cluster"]:
        where = f"on cluster {place['name']}" if place["name"] else "on the cluster"
    elif place["cores"]:
        cards = count(place["gpus"], "GPU") if place["gpus"] else "no GPU"
        where += f" ({count(place['cores'], 'core')}, {cards})"
    begin = f"The plan: {count(totals['jobs'], 'job')} to run"
    return f"{begin}{'' if done is None else f', {done:,} up to date'}, {where}\n"


# -- the table of rules ------------------------------------------------------------------------------------------------


def _columns(plan: dict[str, Any]) -> list[str]:
    columns = ["rule", "jobs", "why", "cores", "GPUs", "memory"]
    if plan["place"]["cluster"]:
        columns += ["partition", "asked"]
    return [*columns, "usual", "slow", "estimate"]


def _rows(plan: dict[str, Any]) -> list[list[str]]:
    cluster = plan["place"]["cluster"]
    rows = []
    for rule in plan["rules"]:
        row = [
            _short(rule["rule"], 16),
            f"{rule['jobs']:,}",
            _why(rule["reasons"]),
            between(rule["cpus"]),
            _gpus(rule, plan),
            _most(rule["mem_mb"], size),
        ]
        if cluster:
            limit = [60 * m for m in rule["time_limit_min"]] if rule["time_limit_min"] else None
            row += [_short("/".join(rule["partitions"]) or "default", 12), _most(limit, brief)]
        row += [brief(rule["expected_p50_s"]), brief(rule["expected_p95_s"]), _from(rule)]
        rows.append(row)
    return rows


def _most(values: Sequence[float] | None, say: Any) -> str:
    """The largest; `to` before it where jobs differ."""
    if values is None:
        return UNKNOWN
    return f"{'to ' if say(values[0]) != say(values[-1]) else ''}{say(values[-1])}"


def _gpus(rule: dict[str, Any], plan: dict[str, Any]) -> str:
    if not rule["gpus"] or not rule["gpus"][-1]:
        return "-"
    if not plan["place"]["cluster"] and not plan["place"]["gpus"]:
        return "CPU"
    return "/".join([between(rule["gpus"]), *rule["gpu_models"]])


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _why(reasons: dict[str, int]) -> str:
    by_number = sorted(reasons, key=lambda word: (-reasons[word], word))
    return by_number[0] + (f" +{len(by_number) - 1}" if len(by_number) > 1 else "")


def _from(rule: dict[str, Any]) -> str:
    known = sorted(rule["estimates"], key=lambda word: (-rule["estimates"][word], word))
    words = [f"measured on {rule['measured_runs']}" if w == "measured" else w for w in known]
    return ", ".join(words[:2])


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table; words to the left, numbers to the right."""
    wordy = {"rule", "why", "partition", "estimate", ""} | set(head[:left])
    widths = [max(len(head[c]), *(len(row[c]) for row in rows)) for c in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            text.ljust(width) if column in wordy else text.rjust(width)
            for text, width, column in zip(row, widths, head, strict=True)
        ]
        lines.append(_short(("  " + "  ".join(cells)).rstrip(), WIDTH))
    return lines


# -- facts below it ----------------------------------------------------------------------------------------------------


def _facts(plan: dict[str, Any], full: bool) -> list[str]:
    facts = [*_time(plan), *_cost(plan, full), *_space(plan, full), *_cluster(plan)]
    lines = []
    for name, text in facts:
        lines += textwrap.wrap(
            f"  {name + ':':<15} {text}", WIDTH, subsequent_indent=" " * 18, break_on_hyphens=False
        )
    return lines


def _time(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    totals, chain = plan["totals"], plan["critical_path"]
    missing = totals["jobs_of_unknown_length"]
    if missing == totals["jobs"]:
        yield "wall time", f"unknown ({count(missing, 'job')} of unknown length)"
        yield "longest chain", chain_words(chain["rules"])
        return
    slow = duration(totals["wall_p95_s"])
    said = f"about {duration(totals['wall_s'])} (if every job is a slow one: {slow})"
    if missing:
        left_out = f"{count(missing, 'job')} of unknown length left out"
        said = f"at least {duration(totals['wall_s'])}; {left_out}"
    yield "wall time", said + (", queueing apart" if plan["place"]["cluster"] else "")
    walls = plan["wall_times"]
    if walls:
        times = [
            f"{w['count']}: {'too few' if w['wall_s'] is None else duration(w['wall_s'])}"
            for w in walls
        ]
        yield f"by {'GPUs' if walls[0]['kind'] == 'gpus' else 'cores'}", ", ".join(times)
    own = f" ({duration(chain['work_s'])} of work)" if plan["place"]["cluster"] else ""
    yield "longest chain", f"{duration(chain['wall_s'])}{own}: {chain_words(chain['rules'])}"


def chain_words(rules: Sequence[str]) -> str:
    """``convert > audit > 3 x pretrain``."""
    runs: list[tuple[str, int]] = []
    for rule in rules:
        if runs and runs[-1][0] == rule:
            runs[-1] = (rule, runs[-1][1] + 1)
        else:
            runs.append((rule, 1))
    return " > ".join(rule if n == 1 else f"{n} x {rule}" for rule, n in runs)


def _cost(plan: dict[str, Any], full: bool) -> Iterator[tuple[str, str]]:
    totals, worst = plan["totals"], plan["worst_case"]
    billed = ", whole nodes billed" if plan["place"]["exclusive_nodes"] else ""
    hours = [f"{amount(totals['cpu_hours'])} CPU-hours"]
    if totals["gpu_hours"] or plan["place"]["cluster"]:
        hours.insert(0, f"{amount(totals['gpu_hours'])} GPU-hours")
    at_once = [count(totals["peak_jobs"], "job"), count(totals["peak_cpus"], "core")]
    if totals["peak_gpus"]:
        at_once.append(count(totals["peak_gpus"], "GPU"))
    yield "work", f"{', '.join(hours)}{billed}; at most {', '.join(at_once)} at once"
    priced = []
    if totals["money"] is not None:
        priced.append(f"{amount(totals['money'])} {totals['currency']}")
    if totals["energy_kwh"] is not None:
        priced.append(f"{amount(totals['energy_kwh'])} kWh")
    if totals["co2_kg"] is not None:
        priced.append(f"{amount(totals['co2_kg'])} kg CO2")
    if priced:
        yield "price", ", ".join(priced)
    elif full:
        yield "price", "no rates given (config/plan.yaml: rates)"
    if plan["place"]["cluster"] or full:
        no_limit = worst["jobs_without_limit"]
        times = f", {worst['tries']} times" if worst["tries"] > 1 else ""
        left_out = f"; {count(no_limit, 'job')} without a limit left out" if no_limit else ""
        yield (
            "worst case",
            f"{amount(worst['gpu_hours'])} GPU-hours, {amount(worst['cpu_hours'])} CPU-hours, if every job "
            f"uses all its time{times}{left_out}",
        )


def _space(plan: dict[str, Any], full: bool) -> Iterator[tuple[str, str]]:
    disk = plan["disk"]
    missing = disk["jobs_of_unknown_size"]
    if missing == plan["totals"]["jobs"]:
        yield "disk", f"unknown ({count(missing, 'job')} of unknown size)"
    else:
        unknown = f"; {count(missing, 'job')} of unknown size left out" if missing else ""
        files = count(disk["files"], "file")
        yield "disk", f"{size(disk['peak_mb'])} at the fullest moment, {files}{unknown}"
        if full:
            kinds = sorted(disk["kinds"], key=lambda k: (-k["mb"], k["kind"]))
            said = [
                f"{k['kind']} {size(k['mb'])} ({count(k['files'], 'file')})"
                for k in kinds
                if k["files"] or k["mb"]
            ]
            yield "by kind", ", ".join(said)
    for system in plan["now"] if full or plan["place"]["cluster"] else []:
        files = "" if system["free_files"] is None else f" and {amount(system['free_files'])} files"
        yield "free", f"{size(system['free_mb'])}{files} where {system['folder']} is (quotas apart)"


def _cluster(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    place, totals = plan["place"], plan["totals"]
    if not place["cluster"]:
        return
    terms, chain = place["terms"], plan["critical_path"]
    flight = (
        f", at most {place['most_jobs_in_flight']:,} in flight"
        if place["most_jobs_in_flight"]
        else ""
    )
    rate = place["submissions_per_s"]
    pace = f", {amount(60 * rate)} a minute" if rate else ""
    yield "submissions", f"{totals['submissions']:,}{flight}{pace}"
    yield (
        "cluster adds",
        f"{duration(terms['in_job_s'])} of start-up in each ({amount(totals['start_up_hours'])} h in all), "
        f"{duration(terms['notice_s'])} until an end is noticed; in the longest chain together "
        f"{duration(chain['start_up_s'] + chain['notice_s'])}",
    )


def _problems(plan: dict[str, Any]) -> list[str]:
    lines = []
    for found in plan["problems"]:
        who = f"{found['rule']} ({count(found['jobs'], 'job')})" if found["rule"] else found["kind"]
        end = ". It would be refused or wait for ever" if found["waits_for_ever"] else ""
        lines += _item("!" if found["stops"] else "?", f"{who}: {found['text']}{end}")
    for over in plan["over_budget"]:
        what = over["what"].replace("_", " ")
        planned, bound = amount(over["planned"]), amount(over["budget"])
        lines += _item("!", f"over budget: {planned} {what}, allowed are {bound}")
    return ["", "Will not work (!) or may not (?)", *lines] if lines else []


def _advice(plan: dict[str, Any]) -> list[str]:
    lines = [line for text in plan["advice"] for line in _item("-", text)]
    return ["", "Advice", *lines] if lines else []


def _item(mark: str, text: str) -> list[str]:
    return textwrap.wrap(
        f"  {mark} {text}", WIDTH, subsequent_indent="    ", break_on_hyphens=False
    )
