"""Write converted scans as files for a viewer: volumes as NIfTI, images as 16-bit PNG, and files.csv."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fewscans import cli
from fewscans.config.stages import ExportParams


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments `argv`; exit code."""
    made = cli.parser(__doc__ or "", ExportParams)
    made.add_argument(
        "--converted", required=True, nargs="+", help="folders that convert wrote, all chunks"
    )
    made.add_argument(
        "--out", required=True, help="folder to write; it must be new or of this script"
    )
    made.add_argument("--sidecar", help="write settings, seconds and counts to this JSON file")
    return cli.run(made, _export, argv, ExportParams)


def _export(arguments: argparse.Namespace, params: ExportParams) -> dict[str, Any]:
    from fewscans.export import export_scans

    return export_scans(params, arguments.converted, arguments.out)


if __name__ == "__main__":
    raise SystemExit(main())
