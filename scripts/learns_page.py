"""Write docs/learns.md from the JSON files of scripts/learns.py.

python scripts/learns_page.py results/learns/*/learns.json --out docs/learns.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli
from fewscans.files import write_text
from fewscans.report.learns import page


def work(arguments: argparse.Namespace, _: Any) -> None:
    """Read all parts and write the page."""
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.parts]
    write_text(arguments.out, page(parts))


def main(argv: Sequence[str] | None = None) -> int:
    """Run; an exit code."""
    made = cli.parser(__doc__ or "")
    made.add_argument("parts", nargs="+", type=Path, help="JSON files of scripts/learns.py")
    made.add_argument("--out", type=Path, required=True, help="page to write")
    return cli.run(made, work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
