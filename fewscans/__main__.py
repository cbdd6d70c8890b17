"""``fewscans COMMAND``: what surrounds the workflow. The workflow itself is started with ``snakemake``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from fewscans import __version__
from fewscans.commands import COMMANDS
from fewscans.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 a user's mistake (said in words), 130 interrupted."""
    made = argparse.ArgumentParser(
        prog="fewscans",
        description="What surrounds the workflow, which itself is started with `snakemake`.",
    )
    made.add_argument("--version", action="version", version=f"fewscans {__version__}")
    words = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for word, name in COMMANDS.items():
        module = import_module(f"fewscans.commands.{name}")
        # A flag is written out: half of one would be taken for another.
        one = words.add_parser(word, help=module.HELP, description=module.HELP, allow_abbrev=False)
        module.add_arguments(one)
    arguments = made.parse_args(argv)
    try:
        return import_module(f"fewscans.commands.{COMMANDS[arguments.command]}").run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
