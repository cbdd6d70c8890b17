"""The plan as files: JSON (the whole) and CSV (a line per rule). The same plan gives the same bytes."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from fewscans.errors import UserError
from fewscans.files import write_json, write_text
from fewscans.forecast.totals import SCHEMA_VERSION


def save_json(plan: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """The plan as it is; units stand in the names, ``now`` holds what depends on the hour."""
    write_json(path, plan)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """An earlier plan.

    Raises
    ------
    UserError
        It is no plan, or one of another version.
    """
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError:
        raise UserError(f"{path}: not JSON. `fewscans plan --json {path}` writes a plan.") from None
    version = plan.get("schema_version") if isinstance(plan, dict) else None
    if version is None or "rules" not in plan:
        raise UserError(f"{path}: no plan. `fewscans plan --json {path}` writes one.")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: a plan of version {version}; this fewscans writes version {SCHEMA_VERSION}. Make it again."
        )
    return plan


def csv_text(plan: dict[str, Any]) -> str:
    """A line per rule; ranges as two columns, words joined by ``;``."""
    rows = [_flat(rule) for rule in plan["rules"]]
    made = io.StringIO()
    columns = list(rows[0]) if rows else ["rule", "jobs"]
    writer = csv.DictWriter(made, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return made.getvalue()


def save_csv(plan: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write `csv_text`."""
    write_text(path, csv_text(plan))


RANGES = ("cpus", "gpus", "mem_mb", "time_limit_min")


def _flat(rule: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in rule.items():
        if key in RANGES:
            low, high = value or ("", "")
            row |= {f"{key}_least": low, f"{key}_most": high}
        elif isinstance(value, dict):
            row[key] = ";".join(f"{word}:{number}" for word, number in value.items())
        elif isinstance(value, list):
            row[key] = ";".join(map(str, value))
        else:
            row[key] = "" if value is None else value
    return row
