"""What may leave the house, gathered and searched: no pixels of a store, no weights, no log, no path, no name."""

from __future__ import annotations

import base64
import csv
import json
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fewscans import __version__
from fewscans.config.stages import ShareableParams
from fewscans.contracts import COLUMNS, read_metadata, read_table, write_table
from fewscans.errors import UserError
from fewscans.files import atomic, sha256_file, write_json, write_text
from fewscans.privacy.pseudonyms import read_key
from fewscans.privacy.search import names_of, search
from fewscans.privacy.table import table_path

MANIFEST = "MANIFEST.csv"
TABLES = ("ablation_table.csv", "ablation_table.parquet", "ablation_table.md", "ablation_table.tex", "scores.parquet",
          "contrasts.parquet", "report.html")  # fmt: skip
PACKAGES = ("torch", "timm", "monai", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "scikit-image", "pydicom",
            "nibabel", "SimpleITK", "Pillow", "pydantic", "snakemake")  # fmt: skip
# Of the metadata of predictions; the rest says where weights lie.
_SAID = ("task", "classes")
READ_ME = """# What this is

Results of fewscans, gathered by `snakemake shareable`: tables, figures, the report, a data sheet for each data set,
predictions, the settings, and versions of the software. `MANIFEST.csv` has the SHA-256 of each file.

Patients and scans of private data sets have keyed pseudonyms; what they stand for is not in here. Every file was
searched for the names, numbers, dates and paths that the private tables hold, in packed form too, and none was found.
Figures of views and reconstructions show scans: look at them for burned-in text and faces before you pass them on.
"""


def make_shareable(
    params: ShareableParams, plan_file: Path, results: Path, out: Path
) -> dict[str, Any]:
    """Gather into the folder `out`, whole or not at all; facts for the side-car.

    Raises
    ------
    UserError
        A name of a private table, the key or a path of this machine stands in a file; with all places. Or a private
        table is not there.
    """
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    names = _sought(params, plan)
    with atomic(out, folder=True) as folder:
        for name in TABLES:
            _copy(results / name, folder / name)
        for name in plan["datasets"]:
            for figure in sorted(Path(results, "figures", name).iterdir()):
                _copy(figure, folder / "figures" / name / figure.name)
        for name in params.datasets:
            for end in (".md", ".json", ".claim.md"):
                _copy(results / f"datasheet/{name}{end}", folder / f"datasheet/{name}{end}")
        for run in plan["runs"]:
            _predictions(Path(run["predictions"]), folder / "predictions" / _called(run))
        write_json(folder / "config.json", _settings(plan))
        write_json(folder / "versions.json", _versions(plan))
        write_text(folder / "README.md", READ_ME)
        found = search(_files(folder), names, below=folder)
        if found:
            raise UserError(
                f"{out}: not made, since names stand where they must not",
                [
                    (leak.place, f"holds what the private table has as {leak.kind}")
                    for leak in found
                ],
            )
        n = _manifest(folder)
    return {"files": n, "names": len(names)}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _called(run: dict[str, Any]) -> str:
    return (
        "/".join(str(run[name]) for name in ("encoder", "recipe", "dataset", "fold"))
        + f"/{run['seed']}.parquet"
    )


def _predictions(source: Path, target: Path) -> None:
    """The columns of the contract, and of the metadata what is no place."""
    said = read_metadata(source)
    table = read_table(source, "predictions")[list(COLUMNS["predictions"])]
    write_table(
        target, "predictions", table, **{name: said[name] for name in _SAID if name in said}
    )


def _settings(plan: dict[str, Any]) -> dict[str, Any]:
    """Settings without folders and files; those that name scans were left out of the plan already."""
    return {
        name: value for name, value in plan["config"].items() if name not in ("work", "results")
    }


def _versions(plan: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # another machine may have trained
            continue
    return {
        "fewscans": __version__, "python": platform.python_version(), "packages": found, "digests": plan["digests"],
    }  # fmt: skip


def _sought(params: ShareableParams, plan: dict[str, Any]) -> dict[bytes, str]:
    """Everything that must not be found, and what it is."""
    names: dict[bytes, str] = {}
    if params.hidden:
        assert params.private is not None
        allowed = {*params.datasets, *plan["recipes"], *plan["encoders"]}
        for said in plan["datasets"].values():
            allowed |= set(read_table(said["labels"], "labels")["target"])
        names = names_of((table_path(params.private, name) for name in params.hidden), allowed)
        key = read_key(params.private, params.key)
        forms = [key, key.hex().encode(), base64.b64encode(key).rstrip(b"=")]
        names |= dict.fromkeys(forms, "key of pseudonyms")
    return names | {
        place.encode(): "a path of this machine" for place in params.places if len(place) > 3
    }


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def _manifest(folder: Path) -> int:
    """Write the list of all files; their number."""
    rows = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, sha256_file(path))
        for path in _files(folder)
    ]
    with open(folder / MANIFEST, "w", newline="", encoding="utf-8") as handle:
        made = csv.writer(handle, lineterminator="\n")
        made.writerow(["file", "bytes", "sha256"])
        made.writerows(rows)
    return len(rows)
