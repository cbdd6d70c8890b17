"""Damaged and foreign files, chunks of scans, and the script that makes them."""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from convert_factory import GRAY, reason, save
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewscans import convert
from fewscans.config.stages import ConvertParams
from fewscans.convert import Unreadable, read
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.convert.fingerprint import pixel_digest
from fewscans.convert.sources import in_chunk, list_scans
from fewscans.errors import UserError

# --- damaged and foreign files --------------------------------------------------------------------


def test_reasons_are_words(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("<html>no such page</html>" * 20)
    (tmp_path / "gz").write_bytes(gzip.compress(b"x" * 1000))
    assert reason(tmp_path / "empty") == "unreadable: the file is empty (0 bytes)"
    assert "not an image of a kind that is read (PNG, JPEG" in reason(tmp_path / "text")
    assert "gzip of something else" in reason(tmp_path / "gz")
    assert "is a folder" in reason(tmp_path)
    assert "no such file" in reason(tmp_path / "missing")


def every_kind(folder: Path, write_dicom) -> list[Path]:
    import nibabel as nib

    smooth = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    files = [save(folder / kind, smooth, format=kind) for kind in ("PNG", "JPEG", "TIFF", "BMP")]
    files.append(write_dicom(folder / "DICOM", smooth))
    nifti = nib.Nifti1Image(smooth, np.eye(4)).to_bytes()
    (folder / "NIFTI").write_bytes(nifti)
    (folder / "NIFTI.gz").write_bytes(gzip.compress(nifti))
    return [*files, folder / "NIFTI", folder / "NIFTI.gz"]


def test_a_file_cut_anywhere_is_unreadable_or_whole_never_a_crash(tmp_path, write_dicom):
    for path in every_kind(tmp_path, write_dicom):
        data, whole = path.read_bytes(), read(path).physical()
        for share in (0.02, 0.1, 0.3, 0.6, 0.9):
            (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
            try:
                made = read(tmp_path / "cut").physical()
            except Unreadable:
                continue
            else:  # only the trailer was cut
                np.testing.assert_array_equal(made, whole, err_msg=path.name)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_with_wrong_bytes_is_never_a_crash(tmp_path_factory, write_dicom, data):
    folder = tmp_path_factory.mktemp("damaged")
    path = data.draw(st.sampled_from(every_kind(folder, write_dicom)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, min(len(content), 700) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(Unreadable):
        assert read(path).array.shape[0] in (1, 3)


def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch, write_dicom):
    monkeypatch.setattr(convert, "MAX_PIXELS", 30)
    for path in every_kind(tmp_path, write_dicom):
        assert "set-aside" in reason(path)
        assert "more than the" in reason(path)


def test_several_images_in_a_tiff_are_set_aside(tmp_path):
    image = Image.fromarray(GRAY)
    image.save(tmp_path / "a", format="TIFF", save_all=True, append_images=[image])
    assert "2 images in one file" in reason(tmp_path / "a")


# --- chunks ---------------------------------------------------------------------------------------

ODD_NAMES = [
    "a b.png",
    "it's.png",
    'say "hi".png',
    "100%.png",
    ".hidden.png",
    "ünï-日本.png",
    "$(x);&.png",
    "-rf.png",
]


def test_odd_names_convert_through_the_script(tmp_path, script, write_table):
    root = tmp_path / "odd 'root' 100%"
    root.mkdir()
    for number, name in enumerate(ODD_NAMES):
        save(root / name, GRAY + np.uint8(number), format="PNG")
    table = write_table(root / "labels.csv", [{"path": name} for name in ODD_NAMES])
    params = ConvertParams(dataset="odd", root=str(root), table=str(table)).model_dump_json()
    assert script("convert").main(["--params", params, "--out", str(tmp_path / "out")]) == 0
    index, read_pixels = read_converted([tmp_path / "out"])
    assert index["path"].tolist() == sorted(ODD_NAMES)
    for row in index.to_dict("records"):
        expected = GRAY + np.uint8(ODD_NAMES.index(row["path"]))
        np.testing.assert_array_equal(read_pixels(row)[0], expected)


def test_chunks_part_the_scans_and_read_as_one(tmp_path, scan_folder):
    root = scan_folder(20)
    params = {"dataset": "d", "root": str(root), "table": str(root / "labels.csv")}
    for chunk in range(3):
        write_chunk(ConvertParams(**params, chunk=chunk, chunks=3), tmp_path / str(chunk))
    write_chunk(ConvertParams(**params), tmp_path / "whole")
    index, read_pixels = read_converted([tmp_path / str(chunk) for chunk in (2, 0, 1)])
    whole, _ = read_converted([tmp_path / "whole"])
    assert index["folder"].nunique() == 3
    same = ["scan", "path", "pixel_sha256", "sha256", "mean"]
    assert index[same].equals(whole[same])
    for _, row in index.iterrows():
        np.testing.assert_array_equal(read_pixels(row), read(root / row["path"]).physical())
    assert (
        pixel_digest(read_pixels(next(index.itertuples(index=False)))) == index["pixel_sha256"][0]
    )


def test_a_scan_more_moves_no_other_to_another_chunk(scan_folder):
    def chunks(n: int, name: str) -> dict[str, int]:
        root = scan_folder(n, name=name)
        sources = list_scans(
            ConvertParams(dataset="d", root=str(root), table=str(root / "labels.csv"))
        )
        return {s.path: c for c in range(4) for s in in_chunk(sources, c, 4)}

    few, more = chunks(10, "few"), chunks(12, "more")
    assert len(more) == 12
    assert few.items() <= more.items()


def test_the_same_scans_give_the_same_bytes(tmp_path, scan_folder, make_converted):
    root = scan_folder(6)
    first = make_converted(root)
    before = [(first / name).read_bytes() for name in ("index.parquet", "pixels.bin")]
    assert [
        (make_converted(root) / n).read_bytes() for n in ("index.parquet", "pixels.bin")
    ] == before


def test_one_bad_file_is_listed_or_stops_the_run(tmp_path, scan_folder, make_converted):
    root = scan_folder(8, kinds=["png"])
    bad = sorted((root / "images").iterdir())[1:3]
    bad[0].write_bytes(bad[0].read_bytes()[:100])
    bad[1].write_text("not an image")
    index, read_pixels = read_converted([make_converted(root)])
    left_out = index[index["status"] != "ok"]
    assert left_out["path"].tolist() == [f"images/{path.name}" for path in bad]
    assert (left_out["reason"] != "").all()
    assert (index["status"] == "ok").sum() == 6
    with pytest.raises(ValueError, match="has no pixels"):
        read_pixels(left_out.iloc[0])
    with pytest.raises(UserError) as caught:
        make_converted(root, on_unreadable="stop")
    assert len(caught.value.problems) == 2


def test_an_interrupted_chunk_is_not_taken_for_a_whole_one(scan_folder, make_converted):
    out = make_converted(scan_folder(6))
    with open(out / "pixels.bin", "r+b") as handle:
        handle.truncate(100)
    with pytest.raises(UserError, match="cut short"):
        read_converted([out])
    (out / "index.parquet").unlink()
    with pytest.raises(UserError, match="interrupted"):
        read_converted([out])


def test_a_folder_per_class_needs_no_table(tmp_path):
    for path in ("ill/a.png", "ill/deeper/b.png", "well/a.png", ".git/x.png", "well/.DS_Store"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / path, GRAY, format="PNG")
    (tmp_path / "README.md").write_text("not a scan")
    sources = list_scans(ConvertParams(dataset="d", root=str(tmp_path)))
    assert [source.path for source in sources] == ["ill/a.png", "ill/deeper/b.png", "well/a.png"]
    fewer = list_scans(ConvertParams(dataset="d", root=str(tmp_path), exclude=["ill/deeper/*"]))
    assert [source.path for source in fewer] == ["ill/a.png", "well/a.png"]


def test_a_name_that_is_no_text_is_refused_in_words(tmp_path):
    for name in (b"ill/a.png", b"well/\xff\xfe.png"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(b"x")
    with pytest.raises(UserError, match="is not valid UTF-8; rename the file") as caught:
        list_scans(ConvertParams(dataset="d", root=str(tmp_path)))
    str(caught.value).encode()  # can be printed anywhere


def test_the_script_says_what_is_wrong_and_ends_with_2(tmp_path, script, capsys):
    params = ConvertParams(dataset="d", root=str(tmp_path / "none")).model_dump_json()
    assert script("convert").main(["--params", params, "--out", str(tmp_path / "o")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_script_runs_as_a_program(tmp_path, scan_folder):
    root = scan_folder(4)
    script = Path(__file__).parents[1] / "scripts" / "convert.py"
    params = ConvertParams(dataset="d", root=str(root), table=str(root / "labels.csv"))
    command = [sys.executable, str(script), "--params", params.model_dump_json(), "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    subprocess.run(
        [*command, "--sidecar", "side.json"],
        cwd=tmp_path,
        check=True,
        env=environment,
        capture_output=True,
    )
    assert (tmp_path / "out" / "pixels.bin").stat().st_size > 0
    assert '"scans": 4' in (tmp_path / "side.json").read_text()


# --- real data ----------------------------------------------------------------------------------


def test_all_of_covid_ct_converts_and_lying_names_show(tmp_path, shared_data):
    import pandas as pd

    root = shared_data("covid_ct")
    table = pd.read_csv(root / "labels.csv").set_index("path")
    write_chunk(
        ConvertParams(dataset="covid", root=str(root), table=str(root / "labels.csv")),
        tmp_path / "out",
    )
    index = read_converted([tmp_path / "out"])[0].set_index("path")
    assert len(index) == 746
    assert (index["status"] == "ok").all()
    said = table.loc[index.index]
    assert (index["format"] == said["file_format"]).all()
    assert (index["mode"] == said["mode"]).all()
    assert [list(s) for s in index["shape"]] == said[["height", "width"]].to_numpy().tolist()
    assert ((index["format"] == "JPEG") & index.index.str.endswith(".png")).sum() == 34
