"""Read the raw scans of one chunk of a data set into pixels.bin and index.parquet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fewscans import cli
from fewscans.config.stages import ConvertParams


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments `argv`; exit code."""
    made = cli.parser(__doc__ or "", ConvertParams)
    made.add_argument("--out", required=True, help="folder for index.parquet and pixels.bin")
    made.add_argument("--sidecar", help="write settings, seconds and counts to this JSON file")
    return cli.run(made, _convert, argv, ConvertParams)


def _convert(arguments: argparse.Namespace, params: ConvertParams) -> dict[str, Any]:
    from fewscans.convert.chunks import write_chunk
    from fewscans.privacy.files import words_kept

    with words_kept(params.private, params.dataset, f"convert.{params.chunk}"):
        return write_chunk(params, arguments.out)


if __name__ == "__main__":
    raise SystemExit(main())
