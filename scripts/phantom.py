"""Write the demo's generated cohort: images, labels.csv, labs.csv and faults.csv, whole or not at all.

python scripts/phantom.py --params '{"cohort": {"n_patients": 150, "seed": 0}}' --out work/phantom/raw
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fewscans import cli
from fewscans.config.stages import PhantomParams


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments `argv`; exit code."""
    made = cli.parser(__doc__ or "", PhantomParams)
    made.add_argument("--out", required=True, help="folder to write; a cohort there is replaced")
    made.add_argument("--sidecar", help="write settings, seconds and counts to this JSON file")
    return cli.run(made, _phantom, argv, PhantomParams)


def _phantom(arguments: argparse.Namespace, params: PhantomParams) -> dict[str, Any]:
    from fewscans.phantom import PhantomSettings, make_cohort, write_cohort

    cohort = make_cohort(PhantomSettings(**params.cohort.model_dump()))
    write_cohort(cohort, arguments.out)
    return {"images": len(cohort.images), "faults": len(cohort.faults)}


if __name__ == "__main__":
    raise SystemExit(main())
