"""Hold every method against an untrained frozen network, scratch and the majority: predictions -> JSON for the page.

python scripts/learns.py --params @aggregate.yaml --plan results/plan.json --out results/learns.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from fewscans import cli
from fewscans.config.stages import AggregateParams
from fewscans.files import write_json
from fewscans.learns import learns


def work(arguments: argparse.Namespace, params: AggregateParams) -> dict[str, Any]:
    """Compare and write; facts for the side-car."""
    plan = json.loads(Path(arguments.plan).read_text(encoding="utf-8"))
    with threadpool_limits(1):
        made = learns(plan, params)
    write_json(Path(arguments.out), made)
    return {"datasets": list(made["datasets"])}


def main(argv: Sequence[str] | None = None) -> int:
    """Run; an exit code."""
    made = cli.parser(__doc__ or "", AggregateParams)
    made.add_argument("--plan", required=True, help="plan.json")
    made.add_argument("--out", required=True, help="JSON for scripts/learns_page.py")
    made.add_argument("--sidecar", help="JSON with settings, versions and seconds")
    return cli.run(made, work, argv, AggregateParams)


if __name__ == "__main__":
    raise SystemExit(main())
