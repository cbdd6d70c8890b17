r"""Find what is wrong with a data set, and write its labels with groups.

python scripts/audit.py --params @audit.yaml --converted work/D/converted/0 work/D/converted/1 \
    --labels work/D/labels.parquet --out work/D/audit
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli
from fewscans.audit import METHOD, audit
from fewscans.config.stages import AuditParams
from fewscans.contracts import write_table
from fewscans.convert.chunks import read_converted
from fewscans.convert.table import read_labels
from fewscans.privacy.files import words_kept
from fewscans.privacy.labels import read_private_labels
from fewscans.privacy.table import table_path


def work(arguments: argparse.Namespace, params: AuditParams) -> dict[str, Any]:
    """Audit the data set; facts for the side-car."""
    index, read_pixels = read_converted(arguments.converted)
    with words_kept(params.private, params.dataset, "audit"):
        if params.private is None:
            table = read_labels(params, index)
        else:
            index, table = read_private_labels(params, index)
        made = audit(index, table, read_pixels, params)
    facts = {"dataset": params.dataset, "classes": made.classes, "flags": made.flags}
    out = Path(arguments.out)
    write_table(out / "duplicates.parquet", "duplicates", made.duplicates, dataset=params.dataset)
    write_table(out / "groups.parquet", "groups", made.groups, dataset=params.dataset)
    write_table(out / "findings.parquet", "findings", made.findings, **facts, shortcut=METHOD)
    private = {}
    if params.private is not None:  # for methods that look values up by what patients are called
        private = {"private": str(table_path(params.private, params.dataset))}
    write_table(arguments.labels, "labels", made.labels, **facts, **private)
    return facts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the audit; an exit code."""
    made = cli.parser(__doc__ or "", AuditParams)
    made.add_argument(
        "--converted", nargs="+", required=True, metavar="FOLDER", help="folders that convert wrote"
    )
    made.add_argument("--labels", required=True, help="file to write: labels.parquet")
    made.add_argument(
        "--out", required=True, help="folder to write: duplicates, groups and findings"
    )
    made.add_argument("--sidecar", help="JSON with settings, versions, seconds and facts")
    return cli.run(made, work, argv, AuditParams)


if __name__ == "__main__":
    raise SystemExit(main())
