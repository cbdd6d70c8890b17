"""The config of a run, named as it is to ``snakemake``: files, and single settings on top of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fewscans.config import Config, load, read_config_file
from fewscans.errors import UserError

USUAL = Path("config/config.yaml")


def add_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--configfile` and `--config`, with Snakemake's meaning."""
    parser.add_argument(
        "--configfile",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help=f"as given to snakemake (default: {USUAL})",
    )
    parser.add_argument(
        "--config",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="single settings, as given to snakemake",
    )


def read(arguments: argparse.Namespace) -> Config:
    """The checked config.

    Raises
    ------
    UserError
        A file cannot be read, a setting is no ``KEY=VALUE``, or the config has faults.
    """
    from snakemake.cli import parse_config
    from snakemake.utils import update_config

    files = arguments.configfile or [USUAL]
    raw: dict[str, Any] = {}
    for path in files:
        update_config(raw, read_config_file(path))
    try:
        update_config(raw, parse_config(arguments.config))
    except ValueError as error:
        raise UserError(f"--config: {error}") from None
    return load(raw, " + ".join(map(str, files)))


def as_words(arguments: argparse.Namespace) -> list[str]:
    """The same for Snakemake's command line."""
    words = ["--configfile", *map(str, arguments.configfile)] if arguments.configfile else []
    return words + (["--config", *arguments.config] if arguments.config else [])
