"""Damaged files of every kind that is read: a refusal or an answer, never a crash, a hang, much memory, or silence.

    python benchmarks/fuzz.py [--files 2000] [--readers nii dicom ...] [--seed 1] [--out benchmarks/results/fuzz.json]

Small files of each kind are flipped, cut short, spliced, given other numbers and sizes in their headers, and
packed gigabytes (the first cases of a reader are such bombs, one for each packed file); headers of images mean
another size or depth; within gzip, zip and PNG with checksums that are right, too. The process that reads them has
10 s of the processor for each and 4 GB beyond its start; over 2 GB resident counts as a failure. Silent is: more
voxels than there are bytes, a cut file with other voxels, fewer voxels than before by a header's word without a
note, an image of another size than its data. Exit code 1 where anything failed. The results file is written after
each reader; what it has of others stays, so that a run may be spread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import write_results
from fuzz_factory import HANG_S, MEMORY_MB, fuzz, summary
from fuzz_files import READERS


def main(argv: Sequence[str] | None = None) -> int:
    """Damage, read, print, write."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--files", type=int, default=2000, help="of each reader")
    made.add_argument("--readers", nargs="+", default=list(READERS), choices=list(READERS))
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--out", type=Path, help="JSON file to write")
    arguments = made.parse_args(argv)
    cases = _known(arguments.out)
    for reader in arguments.readers:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            line = summary(fuzz(Path(folder), [reader], arguments.files, arguments.seed))[0]
        cases[reader] = {**line, "seconds": round(time.monotonic() - began, 1)}
        print(json.dumps(cases[reader]), flush=True)
        kept = [cases[name] for name in READERS if name in cases]
        write_results(arguments.out, kept, seed=arguments.seed, hang_s=HANG_S, memory_mb=MEMORY_MB)
    return 1 if any(cases[reader]["bad"] for reader in arguments.readers) else 0


def _known(path: Path | None) -> dict[str, dict[str, Any]]:
    """What a results file has, by reader."""
    if path is None or not path.is_file():
        return {}
    return {case["reader"]: case for case in json.loads(path.read_text(encoding="utf-8"))["cases"]}


if __name__ == "__main__":
    sys.exit(main())
