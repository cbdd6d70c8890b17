"""Folders that say themselves what is in them: BIDS and the Medical Segmentation Decathlon. Standard library only.

The file that marks a layout stands for its table: rows are made from what the layout says. A table of the user's that
lies beside it and names patients in place of paths is joined to them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans.errors import UserError

Row = dict[str, str]
BIDS, DECATHLON = "dataset_description.json", "dataset.json"
PARTICIPANTS = "participants.tsv"
# Column by which a table is joined: that of BIDS, ours.
_KEYS = {BIDS: "participant_id", DECATHLON: "patient"}


def table_beside(root: Path) -> Path | None:
    """What stands for the label table of a folder without one: `participants.tsv`, or the file that marks the layout.

    None where the folder is no layout that is known.
    """
    if (root / BIDS).is_file():
        return root / (PARTICIPANTS if (root / PARTICIPANTS).is_file() else BIDS)
    return root / DECATHLON if is_decathlon(root / DECATHLON) else None


def is_decathlon(path: Path) -> bool:
    """Whether a `dataset.json` is the Decathlon's: others have a file of this name too."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "training" in found and "modality" in found


def is_layout(table: Path) -> bool:
    """Whether a table lies in, or is, a layout; what is in it may still be a plain table."""
    return (table.parent / BIDS).is_file() or is_decathlon(table.parent / DECATHLON)


def layout_rows(path: Path, rows: Sequence[Row] | None) -> list[Row] | None:
    """A row per scan of the layout that `path` marks, or that the table `path` with its `rows` lies in.

    None where it is a plain table: one with paths, one without the layout's key, one in no layout.

    Raises
    ------
    UserError
        With everything that is wrong with the layout.
    """
    mark = path.name if rows is None else BIDS if (path.parent / BIDS).is_file() else DECATHLON
    if rows is not None and (not rows or "path" in rows[0] or _KEYS[mark] not in rows[0]):
        return None
    if mark == BIDS:
        from fewscans.convert.bids import bids_rows

        return bids_rows(path.parent, rows or [], str(path))
    if mark == DECATHLON and (rows is None or is_decathlon(path.parent / DECATHLON)):
        from fewscans.convert.decathlon import decathlon_rows

        return decathlon_rows(path.parent / DECATHLON, rows or [], str(path))
    return None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises
    ------
    UserError
        It cannot be read, or is no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}). Correct it.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: an object ({{...}}) is needed.")
    return found
