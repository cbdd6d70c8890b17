"""Counts of what is taken apart: volumes of folders, slices of volumes; and chunks by bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from series_factory import BODY, Series

from fewscans import rawdata
from fewscans.config import Config, load
from fewscans.config.stages import ConvertParams
from fewscans.convert.chunks import write_chunk
from fewscans.cost.counts import Counts, count
from fewscans.rawdata import chunks_of, fingerprint, resolve


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rawdata._files.cache_clear()


def config_of(ndim: int = 2, **dataset: Any) -> Config:
    recipes = {"m": {"ndim": ndim, "size": 16}}
    return load({"datasets": {"p": {"root": "scans", **dataset}}, "recipes": recipes})


def convert(config: Config) -> None:
    """As the rule does."""
    dataset, place = config.datasets["p"], resolve(config, "p")
    params = ConvertParams(
        dataset="p", root=place.root, table=place.table, ndim=config.ndim, slices=dataset.slices
    )
    write_chunk(params, Path(config.work, "p", "converted", "0"))


def test_volumes_of_one_folder_are_counted_once_they_are_found(tmp_path, write_dicom):
    lines = ["path,label,patient,split"]
    for k in range(4):
        series = Series(write_dicom, tmp_path / f"scans/p{k}")
        series.body(body=BODY + 100 * k, SeriesInstanceUID=f"1.{k}")
        if k < 2:
            series.body(body=BODY + 900 + k, SeriesInstanceUID=f"2.{k}", SeriesNumber=9)
        lines.append(f"p{k},{k % 2},{k},{'test' if k % 2 else 'train'}")
    (tmp_path / "scans/labels.csv").write_text("\n".join(lines))
    config = config_of(3, table="labels.csv", split="official")
    assert count(config, "p") == Counts(4, 4, 2)
    convert(config)
    assert count(config, "p") == Counts(6, 4, 3)


def test_folders_without_a_table_are_counted_once_they_are_converted(tmp_path, write_dicom):
    for k in range(2):
        series = Series(write_dicom, tmp_path / f"scans/a/p{k}")
        series.body(SeriesInstanceUID=f"1.{k}")
        series.body(SeriesInstanceUID=f"2.{k}", SeriesNumber=9)
    config = config_of(3)
    assert count(config, "p") is None
    convert(config)
    assert count(config, "p") == Counts(4, 2)


def test_slices_are_counted_by_their_rule_or_once_they_are_cut(tmp_path, write_dicom):
    for k in range(3):
        Series(write_dicom, tmp_path / f"scans/p{k}").body(body=BODY + 100 * k)
    lines = ["path,label,patient", *(f"p{k},{k % 2},{k}" for k in range(3))]
    (tmp_path / "scans/labels.csv").write_text("\n".join(lines))

    def config(**rule: Any) -> Config:
        return config_of(table="labels.csv", slices=rule)

    assert count(config(central=2), "p") == Counts(6, 3)
    assert count(config(every=2), "p") is None
    convert(config(every=2))
    assert count(config(every=2), "p") == Counts(9, 3)
    # Of another rule these are not the numbers.
    assert count(config(every=3), "p") is None


def test_the_number_of_chunks_follows_bytes_and_not_files(tmp_path, monkeypatch):
    monkeypatch.setattr(rawdata, "CHUNK_BYTES", 1000)

    def chunks(name: str, sizes: list[int], **given: Any) -> int:
        folder = tmp_path / name / "a"
        folder.mkdir(parents=True)
        for k, size in enumerate(sizes):
            (folder / f"{k}.png").write_bytes(bytes(size))
        return chunks_of(config_of(root=name, **given), "p")

    assert chunks("many", [1] * 900) == 1
    assert chunks("large", [900]) == 1
    assert chunks("larger", [900, 200]) == 2
    assert chunks("largest", [4000, 900]) == 8
    assert chunks("asked", [4000, 900], chunks=3) == 3


def test_files_are_looked_at_once_for_all_jobs(tmp_path, monkeypatch):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/v.png").write_bytes(bytes(9))
    (tmp_path / "scans/labels.csv").write_text("path,label,patient\nv.png,a,1")
    looked = []
    monkeypatch.setattr(rawdata, "_stat", lambda path: looked.append(path) or [9, 1])
    for _ in range(3):
        config = config_of(table="labels.csv")
        assert chunks_of(config, "p") == 1
        assert len(fingerprint(config, "p")) == 16
    assert [path.name for path in looked] == ["v.png"]


def test_files_that_several_rows_name_are_one_chunks_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(rawdata, "CHUNK_BYTES", 1000)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/v.nii").write_bytes(bytes(900))
    lines = ["path,label,patient", *(f"v.nii#axial-{k},{k % 2},1" for k in range(1, 20))]
    (tmp_path / "scans/labels.csv").write_text("\n".join(lines))
    assert chunks_of(config_of(table="labels.csv", slices={}), "p") == 1
