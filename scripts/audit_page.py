r"""Show what the audit found, and describe the data set: pages, data sheet, CLAIM list.

python scripts/audit_page.py --params @page.yaml --converted work/D/converted/0 --labels work/D/labels.parquet \
    --audit work/D/audit --page work/D/audit/audit.html --shown results/audit/D.html --sheet results/datasheet/D
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli
from fewscans.config.stages import AuditPageParams
from fewscans.files import write_json, write_text


def work(arguments: argparse.Namespace, params: AuditPageParams) -> dict[str, Any]:
    """Write all; facts for the side-car."""
    from fewscans.report import claim, datasheet
    from fewscans.report.audit_page import page
    from fewscans.report.audited import read_audited

    audited = read_audited(arguments.labels, arguments.audit, arguments.converted)
    write_text(arguments.page, page(audited, params, keys=False))
    write_text(arguments.shown, page(audited, params, keys=True))
    sheet = datasheet.datasheet(audited, params)
    rows = claim.claim(sheet)
    write_json(Path(f"{arguments.sheet}.json"), {**sheet, "claim_2024": rows})
    write_text(Path(f"{arguments.sheet}.md"), datasheet.markdown(sheet))
    write_text(Path(f"{arguments.sheet}.claim.md"), claim.markdown(params.dataset, rows))
    return {"dataset": params.dataset, "scans": sheet["facts"]["scans"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Run; an exit code."""
    made = cli.parser(__doc__ or "", AuditPageParams)
    made.add_argument(
        "--converted", nargs="+", required=True, metavar="FOLDER", help="folders that convert wrote"
    )
    made.add_argument("--labels", required=True, help="labels.parquet of the audit")
    made.add_argument("--audit", required=True, help="folder with the audit's tables")
    made.add_argument("--page", type=Path, required=True, help="page to write, with paths")
    made.add_argument("--shown", type=Path, required=True, help="page to write, without paths")
    made.add_argument(
        "--sheet",
        required=True,
        metavar="BEGIN",
        help="writes BEGIN.md, BEGIN.json, BEGIN.claim.md",
    )
    made.add_argument("--sidecar", help="JSON with settings, versions, seconds and facts")
    return cli.run(made, work, argv, AuditPageParams)


if __name__ == "__main__":
    raise SystemExit(main())
