r"""Gather what may leave the house, and search it for what must not.

python scripts/shareable.py --params @shareable.yaml --plan results/plan.json --results results --out results/shareable
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli
from fewscans.config.stages import ShareableParams


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 2 where a name was found."""
    made = cli.parser(__doc__ or "", ShareableParams)
    made.add_argument(
        "--plan",
        type=Path,
        required=True,
        help="plan.json; its paths start at the working directory",
    )
    made.add_argument("--results", type=Path, required=True, help="folder of the results")
    made.add_argument("--out", type=Path, required=True, help="folder to write")
    made.add_argument("--sidecar", help="JSON with settings, versions, seconds and facts")
    return cli.run(made, work, argv, ShareableParams)


def work(arguments: argparse.Namespace, params: ShareableParams) -> dict[str, Any]:
    """Gather; facts for the side-car."""
    from fewscans.privacy.shareable import make_shareable

    return make_shareable(params, arguments.plan, arguments.results, arguments.out)


if __name__ == "__main__":
    raise SystemExit(main())
