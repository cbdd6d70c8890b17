"""Rows of the index under pseudonyms, and the private part that says whose they are."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewscans.config.stages import AuditParams, ConvertParams
from fewscans.convert import log
from fewscans.privacy.allowed import passed_on
from fewscans.privacy.files import private_folder
from fewscans.privacy.pseudonyms import Pseudonyms, read_key
from fewscans.privacy.table import PART, part_path, write


def pseudonyms_of(params: ConvertParams | AuditParams) -> Pseudonyms:
    """Those of a private data set."""
    assert params.private is not None
    return Pseudonyms(read_key(params.private, params.key), params.dataset)


@contextlib.contextmanager
def decoders_kept(private: str | None, dataset: str, what: str) -> Iterator[None]:
    """What decoders print inside (paths, values of headers) goes to a private file; without `private` it is printed."""
    if private is None:
        yield
        return
    told = private_folder(Path(private, dataset)) / f"{what}.log"
    sys.stderr.flush()
    with open(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
        before = os.dup(2)
        try:
            os.dup2(handle.fileno(), 2)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            os.dup2(before, 2)
            os.close(before)
    if not told.stat().st_size:
        told.unlink()


def hide(rows: list[dict[str, Any]], params: ConvertParams) -> tuple[list[dict[str, Any]], str]:
    """(rows of the index of a chunk under pseudonyms, mark of the key); what they were called is written privately.

    Each of `rows` has `source`, `whole`, `date` and `identifiers` beside the columns of the index.
    """
    assert params.private is not None
    names = pseudonyms_of(params)
    shown, kept = [], []
    for row in rows:
        scan, source = names.scan(row["path"]), names.scan(row["source"])
        kept.append({name: row.get(name) for name in PART} | {"scan": scan, "source_key": source})
        of = {name: names.scan(row[name]) for name in ("volume", "whole")}
        shown.append({**passed_on(row), "scan": scan, "path": scan, "source": source, **of})
        if row["status"] != "ok":
            log.warning("%s: %s: %s", scan, row["status"], shown[-1]["reason"])
    write(part_path(params.private, params.dataset, params.chunk), PART, kept)
    return shown, names.mark()
