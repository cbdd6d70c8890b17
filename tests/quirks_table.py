"""What becomes of every file of peculiar DICOM, as a row; of a file with several frames, of its first.

    python tests/quirks_table.py SHARED/data/dicom_2d_quirks

writes tests/data/dicom_2d_quirks.csv. Compare each line that changes with the set's own labels.csv before it is kept.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from fewscans.convert import Unreadable, read

EXPECTED = Path(__file__).parent / "data" / "dicom_2d_quirks.csv"
FIELDS = (
    "path", "status", "reason", "shape", "dtype", "mode", "bits", "unit", "low", "high", "notes",
)  # fmt: skip


def labels(root: Path) -> list[dict[str, str]]:
    """Rows of the set's own table."""
    with open(root / "labels.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def outcomes(root: Path) -> Iterator[dict[str, str]]:
    """A row for each row of `labels`, all text; `low` and `high` are physical values."""
    for label in labels(root):
        several = label["frames"].isdigit() and int(label["frames"]) > 1
        row = dict.fromkeys(FIELDS, "") | {"path": label["path"] + "#1" * several}
        try:
            scan = read(root / label["path"], 2, 0 if several else None)
        except Unreadable as error:
            # What decoders say differs from version to version.
            reason = error.reason.partition("pixels cannot be decoded (Unable")
            yield row | {
                "status": error.status,
                "reason": reason[0] + reason[1].removesuffix(" (Unable"),
            }
            continue
        values, meta = scan.physical(), scan.meta
        yield row | {
            "status": "ok", "shape": "x".join(map(str, scan.array.shape)), "dtype": str(scan.array.dtype),
            "mode": meta.mode, "bits": str(meta.bits), "unit": meta.unit, "low": f"{values.min():.6g}",
            "high": f"{values.max():.6g}", "notes": "; ".join(meta.notes),
        }  # fmt: skip


if __name__ == "__main__":
    with open(EXPECTED, "w", encoding="utf-8", newline="") as made:
        writer = csv.DictWriter(made, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(outcomes(Path(sys.argv[1])))
