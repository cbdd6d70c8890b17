"""``fewscans tune-status``: searches for hyper-parameters, running or finished; and what they found as config."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewscans.errors import UserError

HELP = "how far the searches for hyper-parameters are, and what they found"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to look, and what to print."""
    parser.add_argument(
        "folder", nargs="?", default="work", type=Path, help="searches below it (default: work)"
    )
    parser.add_argument(
        "--write-config",
        action="store_true",
        help="print what finished searches found, as YAML for a config",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print a table, or a piece of config."""
    from fewscans.tune import status

    if arguments.write_config:
        print(snippet(list(finished(arguments.folder))), end="")
        return 0
    try:
        found = [status.read(folder) for folder in status.find(arguments.folder)]
    except ImportError:
        raise UserError(
            "searches are read by optuna, which is not installed: pip install 'fewscans[tune]'"
        ) from None
    if not found:
        raise UserError(
            f"{arguments.folder}: no search here. `snakemake tuned` begins those of the config's `tune`."
        )
    print(status.table(found))
    return 0


def finished(root: Path) -> Iterator[dict[str, Any]]:
    """Every best.json below `root`."""
    for path in sorted(root.rglob("best.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if "values" in found and found.get("metric") == "inner_log_loss":
            yield found


def snippet(found: list[dict[str, Any]]) -> str:
    """YAML with the values of each encoder; where searches differ, the first is taken and the others are named.

    Raises
    ------
    UserError
        No search is finished.
    """
    import yaml

    if not found:
        raise UserError(
            "no finished search here; see `fewscans tune-status` without --write-config."
        )
    lines: list[str] = []
    made: dict[str, Any] = {}
    used: dict[tuple[str, ...], str] = {}
    for best in found:
        name = f"{best['encoder']} {best['recipe']} {best['dataset']} fold {best['fold']}"
        lines.append(f"# {name}: trial {best['trial']}, inner log-loss {best['value']:.4f}")
        if best["folds_that_test_these_labels"]:
            folds = ", ".join(best["folds_that_test_these_labels"])
            lines.append(
                f"#   Its labels are tested in fold {folds}: with these values scores there are too good. "
                "`tune: {use: true}` takes each fold's own."
            )
        for key, value in best["values"].items():
            kind, _, setting = key.partition(".")
            place = ("encoders", best["encoder"]) if kind == "encoder" else _protocol(best)
            path = (*place, setting)
            if path in used and _at(made, path) != value:
                lines.append(f"#   left out: {'.'.join(path)}: {value} (that of {used[path]} is taken)")  # fmt: skip
                continue
            used.setdefault(path, name)
            here = made
            for part in place:
                here = here.setdefault(part, {})
            here[setting] = value
    return "\n".join(lines) + "\n" + yaml.safe_dump(made, sort_keys=False)


def _protocol(best: dict[str, Any]) -> tuple[str, str]:
    return ("protocol_settings", best["protocol"])


def _at(made: dict[str, Any], path: tuple[str, ...]) -> Any:
    for part in path:
        made = made[part]
    return made
