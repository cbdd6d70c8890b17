"""What a run planned: digests of its settings and code, held against what a job finds when it starts.

A queued job reads Snakefile, config and scripts when its turn comes, perhaps days later. The main process writes down
what it planned; every script looks up its own settings there and computes the digest of its code anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fewscans import digest
from fewscans.errors import UserError
from fewscans.files import write_text

# Set by the main process, inherited by its jobs: the file with the digests.
VARIABLE = "FEWSCANS_RUN"
FILE = "run-digests.json"


def settings_digest(text: str) -> str:
    """Of the text of ``--params``, as it is."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def planned(jobs: Iterable[Any]) -> dict[str, Any]:
    """Digests of Snakemake's `jobs` by their params `cfg` and `code`.

    ``settings`` maps the digest of a job's settings to that of its code, ``code`` a digest of code to the modules it
    is of; ``scripts`` are the digests of rules whose scripts have no settings.
    """
    settings: dict[str, str] = {}
    scripts: set[str] = set()
    for job in jobs:
        cfg, code = job.params.get("cfg"), job.params.get("code")
        if not isinstance(code, str):
            continue
        if isinstance(cfg, str):
            settings[settings_digest(cfg)] = code
        else:
            scripts.add(code)
    used = {*settings.values(), *scripts}
    known = {mark: list(roots) for mark, roots in digest.ROOTS_OF.items() if mark in used}
    return {"settings": settings, "scripts": sorted(scripts), "code": known}


def write(path: str | os.PathLike[str], jobs: Iterable[Any]) -> None:
    """Write the digests of `jobs` and let every job that starts from here find them."""
    text = json.dumps(planned(jobs), sort_keys=True, separators=(",", ":"))
    write_text(path, text + "\n")
    os.environ[VARIABLE] = os.path.abspath(path)


def check(script: str, settings: str | None) -> None:
    """Stop a script that is not what the run planned; nothing happens outside a run.

    Parameters
    ----------
    script
        Module of the script, ``scripts.pretrain``.
    settings
        The text of ``--params``; None where it has none.

    Raises
    ------
    UserError
        Code or settings were changed since the job was submitted.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # removed meanwhile: Snakemake's own comparison is left
    codes = _codes(plan, script, settings)
    if codes is None:
        raise UserError(_words("its settings (config, Snakefile or rules)"))
    for mark in codes:
        roots = plan["code"].get(mark)
        if roots and not _same(mark, roots):
            raise UserError(_words(f"its code ({', '.join(roots)})"))


def _codes(plan: dict[str, Any], script: str, settings: str | None) -> list[str] | None:
    """Digests of code that this script must have; None where its settings were not planned."""
    if settings is None:
        return [mark for mark in plan["scripts"] if _is_of(script, plan["code"].get(mark, []))]
    mark = plan["settings"].get(settings_digest(settings))
    if mark is not None:
        return [mark]
    # A script that no planned job runs was started by somebody else, with settings of their own.
    return None if any(_is_of(script, roots) for roots in plan["code"].values()) else []


def _is_of(script: str, roots: list[str]) -> bool:
    """Whether a rule with code of these modules runs `script`: its own, or the part of the package named like it."""
    stem = script.partition(".")[2]
    return any(root.split(".")[1] == stem for root in roots if "." in root)


def _same(mark: str, roots: list[str]) -> bool:
    try:
        return digest.digest_of(tuple(roots)) == mark
    except (ValueError, SyntaxError):  # a module is gone, or half written
        return False


def _words(what: str) -> str:
    return (
        f"changed since submission: {what} is not what this run planned when it started, so results would be a mix. "
        "Nothing was computed. Run again: the same snakemake command plans anew and keeps what is still valid."
    )
