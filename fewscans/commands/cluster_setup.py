"""Look at the cluster once and write what was found to ``partitions.yaml``."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from pathlib import Path

HELP = "look at this cluster once and write partitions.yaml for profiles/slurm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="the file; default: what FEWSCANS_SITE names, else profiles/slurm/partitions.yaml of this clone. "
        "- prints it only",
    )


def run(arguments: argparse.Namespace) -> int:
    """Show what is there, write the file, say what to do about what does not fit."""
    from fewscans.cluster import slurm
    from fewscans.cluster.check import check_profile, check_site
    from fewscans.cluster.look import look
    from fewscans.cluster.profile import settings
    from fewscans.cluster.show import show
    from fewscans.cluster.site import VARIABLE, parse_site, read_site
    from fewscans.cluster.sitefile import first_text, renewed_text
    from fewscans.errors import Problems, UserError
    from fewscans.files import atomic

    if not slurm.available("scontrol"):
        raise UserError(
            "no Slurm command here (scontrol is not in PATH): run this on a login node."
        )
    default = Path(__file__).resolve().parents[2] / "profiles/slurm/partitions.yaml"
    path = Path(arguments.out or os.environ.get(VARIABLE) or default)
    old = path.read_text(encoding="utf-8") if arguments.out != "-" and path.exists() else None
    if old is not None:
        read_site(path)  # a file with mistakes is not written over
    found = look()
    text = first_text(found) if old is None else renewed_text(old, found)
    site = parse_site(text, str(path))
    print(show(found, site))
    if arguments.out == "-":
        print(f"\n{text}", end="")
    elif text == old:
        print(f"\n{path}: up to date")
    else:
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"\n{path}: {'written' if old is None else 'facts renewed, your settings kept:'}")
        if old is not None:
            lines = difflib.unified_diff(
                old.splitlines(), text.splitlines(), "before", "after", n=0, lineterm=""
            )
            print("\n".join(f"  {line}" for line in lines if not line.startswith("@@")))
    problems = Problems("What will not work as it is")
    check_site(site, problems)
    check_profile(settings(site), site, problems)
    if problems.lines:
        print(f"\n{UserError(problems.title, problems.lines)}", file=sys.stderr)
        return 2
    if arguments.out != "-":
        print(
            "\nNext: edit that file where you want something else, then snakemake --profile profiles/slurm -n"
        )
    return 0
