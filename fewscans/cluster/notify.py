"""A command at the end of a run: a mail, a message, whatever the lab uses."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from fewscans.cluster.site import current_site

LIMIT_S = 60


def notify(status: str, folder: str, log: str | Sequence[str]) -> None:
    """Run the site's `notify` command, if it has one; a failure of it is said and harms nothing.

    Parameters
    ----------
    status
        ``finished`` or ``failed``.
    folder
        Working directory of the run.
    log
        Snakemake's log; of several the first is told.

    They stand in the command's environment: ``FEWSCANS_STATUS``, ``FEWSCANS_FOLDER``, ``FEWSCANS_LOG``.
    """
    site = current_site()
    if site is None or not site.notify:
        return
    first = log if isinstance(log, str) else next(iter(log), "")
    told = {"FEWSCANS_STATUS": status, "FEWSCANS_FOLDER": folder, "FEWSCANS_LOG": first}
    try:
        done = subprocess.run(
            ["bash", "-c", site.notify],
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            timeout=LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"notify: {shlex.quote(site.notify)}: {error}", file=sys.stderr)
        return
    if done.returncode:
        print(
            f"notify: {shlex.quote(site.notify)} ended with exit code {done.returncode}",
            file=sys.stderr,
        )
