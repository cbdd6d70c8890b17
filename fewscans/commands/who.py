"""``fewscans who``: what a scan, patient or site was called, for those who may know."""

from __future__ import annotations

import argparse
from pathlib import Path

from fewscans.commands import run_config
from fewscans.errors import UserError

HELP = "what pseudonyms of scans, patients and sites stand for, from the private tables"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The pseudonyms, and which config."""
    parser.add_argument(
        "names",
        nargs="+",
        metavar="PSEUDONYM",
        help="of a scan (its first characters do), a patient (p...) or a site (site-...)",
    )
    run_config.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print data set, pseudonyms and names, a line per scan.

    Raises
    ------
    UserError
        There is no private table, or a name stands in none.
    """
    from fewscans.privacy.table import TABLE, read, table_path

    config = run_config.read(arguments)
    folder = Path(config.work, "private")
    paths = {name: table_path(folder, name) for name, d in config.datasets.items() if d.is_private}
    there = {name: read(path, TABLE) for name, path in paths.items() if path.is_file()}
    if not there:
        raise UserError(f"{folder}: no private table. It is written by `audit`.")
    lost = []
    for asked in arguments.names:
        found = False
        for dataset, table in there.items():
            # Pages show the first characters of a scan's key.
            scan = table["scan"].str.startswith(asked) & (len(asked) >= 6)
            for row in table[
                scan | (table[["patient_key", "site_key"]] == asked).any(axis=1)
            ].itertuples():
                found = True
                whose = f"patient {row.patient or 'unknown'} ({row.patient_key or '-'})"
                print(
                    f"{asked}\t{dataset}\tscan {row.scan}\t{row.path}\t{whose}\tsite {row.site or '-'}"
                )
        lost += [] if found else [asked]
    if lost:
        raise UserError(
            f"no scan, patient or site of {', '.join(there)} is called {', '.join(lost)}."
        )
    return 0
