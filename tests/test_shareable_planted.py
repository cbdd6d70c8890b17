"""The whole workflow, as typed, over scans with something identifying in every place where it can hide."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from privacy_factory import KINDS, MARK, PER_KIND, PLACE, plant_scans
from test_privacy import holding
from workflows import make_clone

from fewscans.contracts import read_table


def files_of(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.slow
def test_what_was_planted_is_in_the_scans_and_in_nothing_that_a_run_writes(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "clone")
    shutil.rmtree(clone.folder / "raw")
    # Folder and table are typed into the config; they too may be called after somebody.
    root, table = f"{MARK}rootplant", f"{MARK}tableplant.csv"
    plant = plant_scans(clone.folder / root, table_name=table)
    data = {"root": root, "table": table, "private": True}
    data |= {"attributes": PLACE["attributes"], "origin": PLACE["origin"]}
    frozen = {"method": "random", "backbone": "test_resnet"}
    clone.config(
        datasets={"tiny": data}, encoders={"random": frozen}, baselines=["majority"], protocols=["linear"],
    )  # fmt: skip
    said = clone.run("--cores", "1", "shareable", timeout=1800).stdout
    planted = plant.planted | plant.also
    # It was all there to be found, and the scans went the whole way.
    there = "\n".join(holding(files_of(clone.folder / root), plant.planted))
    assert [where for text, where in plant.planted.items() if text not in there] == []
    scans = len(KINDS) * PER_KIND * 2 + 1
    labels = read_table(clone.folder / "work/tiny/labels.parquet", "labels")
    assert (labels["status"] == "ok").sum() == scans
    runs = files_of(clone.folder / "work/predictions")
    assert {path.relative_to(clone.folder / "work/predictions").parts[0] for path in runs} == {
        "majority", "random"
    }  # fmt: skip
    shared = files_of(clone.folder / "results/shareable")
    assert {path.suffix for path in shared} >= {
        ".csv", ".parquet", ".md", ".tex", ".html", ".json", ".png", ".pdf"
    }  # fmt: skip
    # What may be passed on, and all else that was written: logs, reports, stores, side-cars, records of time.
    private = clone.folder / "work/private"
    written = files_of(*(clone.folder / name for name in ("results", "logs", "work")))
    outside = [path for path in written if not path.is_relative_to(private)]
    assert len(outside) < len(written)
    assert {path.suffix for path in outside} >= {".log", ".npy", ".npz", ".tsv", ".html", ".bin"}
    typed = {root: "folder of the scans", table: "label table"}
    assert holding(outside, planted | typed) == []
    # Snakemake itself prints what its jobs read, which are the folder and the table as typed, and nothing in them.
    (tmp_path / "said").write_text(said)
    printed = [tmp_path / "said", *files_of(clone.folder / ".snakemake/log")]
    assert len(printed) > 1
    assert holding(printed, planted) == []
