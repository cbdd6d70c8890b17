"""Weights trained by others, from a local file or timm's hub, as an encoder folder.

python scripts/weights.py --backbone resnet18 --weights hub --out work/encoders/imagenet-resnet18/small/all/all/all
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli


def work(arguments: argparse.Namespace, params: None) -> dict[str, Any]:
    """Fetch, or only see whether they are to be had; facts for the side-car."""
    from fewscans.weights import fetch

    return fetch(
        arguments.backbone, arguments.weights, Path(arguments.out) if arguments.out else None
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; an exit code."""
    made = cli.parser(__doc__)
    made.add_argument("--backbone", required=True, help="timm model name")
    made.add_argument(
        "--weights", default="hub", help="a .safetensors or .pth file, or 'hub' (default)"
    )
    made.add_argument(
        "--out",
        help="folder for encoder.safetensors and encoder.json; without it nothing is written",
    )
    made.add_argument("--sidecar", help="JSON with settings, versions, seconds and facts")
    return cli.run(made, work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
