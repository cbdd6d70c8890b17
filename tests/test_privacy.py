"""Nothing that says who it is gets past `convert`: planted in every place, searched for in every file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import stat
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from privacy_factory import MARK, Lab, Planter, plant_scans

from fewscans.__main__ import main
from fewscans.contracts import read_metadata, read_table
from fewscans.errors import UserError
from fewscans.privacy import header, table
from fewscans.privacy.allowed import PASSED_ON, maker_of, modality_of
from fewscans.privacy.annex_e import is_listed, profile
from fewscans.privacy.dates import are_dates, day_of, offsets
from fewscans.privacy.files import words_kept, write_private
from fewscans.privacy.pseudonyms import Pseudonyms, read_key
from fewscans.privacy.search import is_sought, names_of, search
from fewscans.privacy.unpack import contents
from fewscans.privacy.words import own_words

KEY = hashlib.sha256(b"a key of the tests").digest()


def make_lab(folder: Path, key: bytes = KEY) -> tuple[Lab, Planter]:
    plant = plant_scans(folder / "raw")
    write_private(folder / "key", key)
    lab = Lab(folder, folder / "key")
    lab.through_the_audit()
    return lab, plant


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Planter]:
    """A lab whose scans went through to folds, and what was planted in them."""
    return make_lab(tmp_path_factory.mktemp("lab"))


def holding(paths: list[Path], texts: dict[str, str]) -> list[str]:
    """Place and text of everything that is found, byte for byte."""
    return [
        f"{place}: {where} ({text})"
        for path in paths
        for place, data in [(path.name, str(path).encode()), *contents(path, path.name)]
        for text, where in texts.items()
        if text.encode() in data
    ]


def test_what_was_planted_is_nowhere_outside(made) -> None:
    lab, plant = made
    outside = lab.outside()
    suffixes = {path.suffix for path in outside}
    assert suffixes >= {".parquet", ".bin", ".npy", ".json", ".html", ".md", ".log"}
    assert not holding([p for p in outside if p != lab.key], plant.planted | plant.also)


def test_the_scans_themselves_hold_all_of_it(made) -> None:
    lab, plant = made
    files = [path for path in (lab.folder / "raw").rglob("*") if path.is_file()]
    found = "\n".join(holding(files, plant.planted))
    missed = [where for text, where in plant.planted.items() if text not in found]
    assert not missed


def test_the_private_table_knows_what_was_planted(made) -> None:
    """It is what the search before sharing looks for."""
    lab, plant = made
    names = names_of([table.table_path(lab.work / "private", "d")])
    text = b"\n".join(names)
    missed = {where for planted, where in plant.planted.items() if planted.encode() not in text}
    # What is not passed on and in no attribute of the profile; columns that were not asked for are never read.
    assert missed <= {
        "Modality", "Manufacturer", "RescaleType", "column that nobody asked for", "date in the table", "referrer",
        "id of a ward", "in a broken file", "birth date", "study date", "acquisition date",
    }  # fmt: skip


def test_everything_is_read_all_the_same(made) -> None:
    lab, _ = made
    labels = read_table(lab.work / "d/labels.parquet", "labels")
    assert labels["status"].value_counts().to_dict() == {"ok": 49, "unreadable": 5, "set-aside": 1}
    assert labels["patient"].str.fullmatch("p[0-9a-f]{16}").all()
    assert labels["site"].nunique() == 2
    findings = read_table(lab.work / "d/audit/findings.parquet", "findings")
    assert (findings["check"] == "contradiction").sum() >= 2
    groups = read_table(lab.work / "d/audit/groups.parquet", "groups")
    assert groups["n_patients"].max() == 2
    folds = read_table(lab.work / "d/folds.parquet", "folds")
    assert (folds[folds["role"] == "test"].groupby("group")["fold"].nunique() == 1).all()


def test_dates_become_days_and_places_keep_their_order(made) -> None:
    lab, _ = made
    labels = read_table(lab.work / "d/labels.parquet", "labels")
    told = table.read(table.table_path(lab.work / "private", "d"), table.TABLE).set_index("scan")
    ours = labels[(labels["status"] == "ok")].set_index("scan")
    path = told.loc[ours.index, "path"]
    dicom = ours[path.str.endswith(".dcm").to_numpy()]
    assert dicom.groupby("patient")["day"].min().eq(0).all()
    assert dicom["day"].max() > 0
    assert ours[~path.str.endswith(".dcm").to_numpy()]["day"].isna().all()
    numbered = path.str.contains("_").to_numpy()
    assert (path[numbered].str.extract(r"_(\d)\.")[0].astype(int) == ours["place"][numbered]).all()
    seen = [json.loads(text)["seen"] for text in ours["attributes"]]
    assert all(day.lstrip("-").isdigit() for day in seen if day)
    ages = {json.loads(text)["age"] for text in ours["attributes"]}
    assert ages <= {"", *map(str, range(40, 64))}
    assert all(json.loads(text)["ward"].startswith("v") for text in ours["attributes"])


def test_private_files_are_their_owners_alone(made) -> None:
    lab, _ = made
    private = lab.work / "private"
    for path in [private, *private.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_the_mode_is_there_from_the_first_byte(tmp_path, monkeypatch) -> None:
    seen = []
    replace = os.replace
    monkeypatch.setattr(
        "fewscans.privacy.files.os.replace",
        lambda a, b: (seen.append(stat.S_IMODE(Path(a).stat().st_mode)), replace(a, b)),
    )
    before = os.umask(0)
    try:
        write_private(tmp_path / "p/f", b"x")
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o700


def test_the_same_key_gives_the_same_bytes_and_another_the_same_folds(made, tmp_path) -> None:
    lab, _ = made
    again, _ = make_lab(tmp_path / "again")
    for path in lab.outside():
        if path != lab.key and path.suffix != ".log":  # logs have the time of day
            other = again.folder / path.relative_to(lab.folder)
            assert_same = path.read_bytes() == other.read_bytes()
            # labels.parquet names the private table, which lies in another folder here
            assert assert_same or path.name == "labels.parquet", path
    other, _ = make_lab(tmp_path / "other", key=KEY[::-1])
    assert by_path(lab)["scan"].tolist() != by_path(other)["scan"].tolist()
    pd.testing.assert_frame_equal(
        by_path(lab).drop(columns="scan"), by_path(other).drop(columns="scan")
    )


def by_path(lab: Lab) -> pd.DataFrame:
    """Folds by what scans were called."""
    told = table.read(table.table_path(lab.work / "private", "d"), table.TABLE).set_index("scan")
    folds = read_table(lab.work / "d/folds.parquet", "folds")
    folds["path"] = told.loc[folds["scan"], "path"].to_numpy()
    return folds.sort_values(["fold", "path"], ignore_index=True)


def test_a_search_finds_what_is_leaked_on_purpose(made, tmp_path) -> None:
    """In every wrapping that our outputs have."""
    lab, plant = made
    text = next(text for text, where in plant.planted.items() if where == "PatientID")
    names = names_of([table.table_path(lab.work / "private", "d")])
    for name, content in wrapped(text).items():
        (tmp_path / name).write_bytes(content)
        assert search([tmp_path / name], names), name
        assert holding([tmp_path / name], {text: "PatientID"}), name
        (tmp_path / "clean").write_bytes(content.replace(text.encode(), b"x" * len(text)))
    (tmp_path / f"{text}.csv").write_bytes(b"a,b")
    assert search([tmp_path / f"{text}.csv"], names)
    (tmp_path / "fine.csv").write_bytes(b"patient,prob\np0123456789abcdef,0.5\n")
    assert not search([tmp_path / "fine.csv"], names)


def wrapped(text: str) -> dict[str, bytes]:
    """Name of a file -> content that hides `text`."""
    arrow, picture, archive, arrays = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"a": [["x", text]]}), arrow, compression="zstd")
    said = PngInfo()
    said.add_text("Comment", text * 3 + " " + text, zip=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(picture, "PNG", pnginfo=said)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as inner:
        inner.writestr("inner.csv.gz", gzip.compress(f"a,{text}".encode()))
    np.savez_compressed(arrays, names=np.array([text]))
    page = b"<img src='data:image/png;base64," + base64.b64encode(picture.getvalue())
    pdf = b"%PDF-1.4\nstream\n" + zlib.compress(f"({text}) Tj".encode()) + b"\nendstream"
    escaped = json.dumps(f"\u00e4 {text}").replace(MARK, "".join(f"\\u{ord(c):04x}" for c in MARK))
    return {
        "plain.csv": f"a,{text}\n".encode(), "t.parquet": arrow.getvalue(), "p.png": picture.getvalue(),
        "z.zip": archive.getvalue(), "n.npz": arrays.getvalue(), "page.html": page + b"'>", "f.pdf": pdf,
        "e.json": escaped.encode(), "wide.bin": b"\1" + text.encode("utf-16-le"),
    }  # fmt: skip


def test_what_can_be_told_from_other_text_is_sought() -> None:
    assert all(map(is_sought, ["A-17", "Meier", "123456", "x_01", "Meier^Ute"]))
    assert not any(map(is_sought, ["", "12345", "Ute", "image", "x1"]))


def test_the_log_of_a_mistake_names_nobody(made, tmp_path) -> None:
    """What is wrong with a table or a file stands in the private folder."""
    from scripts import audit, convert

    lab, plant = made
    here = Lab(tmp_path, lab.key, chunks=1)
    here.work = tmp_path / "work"
    place = {
        **here.place(),
        "root": str(lab.folder / "raw"),
        "table": str(lab.folder / "raw/labels.csv"),
    }
    stopped = {**place, "on_unreadable": "stop"}
    assert here.run(convert, "stop", stopped, "--out", tmp_path / "c") == 2
    lost = tmp_path / "lost.csv"
    text = next(iter(plant.planted))
    lost.write_text(f"path,label,patient\n{text}.png,a,b\n")
    assert here.run(convert, "lost", {**place, "table": str(lost)}, "--out", tmp_path / "c") == 2
    given = ["--converted", *lab.converted(), "--labels", tmp_path / "l", "--out", tmp_path / "a"]
    wrong = {**lab.place(), "classes": ["benign"], "table": str(lost)}
    assert here.run(audit, "audit", {**wrong, "private": str(lab.work / "private")}, *given) == 2
    logs = sorted(here.logs.rglob("*.log"))
    assert len(logs) == 3
    assert not holding(logs, plant.planted)
    assert all("stands in" in path.read_text() for path in logs)
    told = (tmp_path / "work/private/d/convert.0.txt").read_text()
    assert f"{text}.png" in told
    with (
        pytest.raises(RuntimeError, match="fault of fewscans") as caught,
        words_kept(str(tmp_path / "p"), "d", "x"),
    ):
        raise ValueError(text)
    assert text not in str(caught.value)
    assert caught.value.__suppress_context__


def test_another_key_is_told_from_the_first(made, tmp_path) -> None:
    from scripts import audit

    lab, _ = made
    write_private(tmp_path / "key", KEY[::-1])
    given = ["--converted", *lab.converted(), "--labels", tmp_path / "l", "--out", tmp_path / "a"]
    here = Lab(tmp_path)
    params = {**lab.place(), "key": str(tmp_path / "key")}
    assert here.run(audit, "audit", params, *given) == 2
    assert "of another key" in (lab.work / "private/d/audit.txt").read_text()


def test_keys(tmp_path) -> None:
    private = tmp_path / "private"
    first = read_key(private)
    assert len(first) == 32
    assert read_key(private) == first
    assert stat.S_IMODE((private / "key").stat().st_mode) == 0o600
    with pytest.raises(UserError, match="no such file"):
        read_key(private, str(tmp_path / "mine"))
    (tmp_path / "mine").write_bytes(KEY)
    (tmp_path / "mine").chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        read_key(private, str(tmp_path / "mine"))
    write_private(tmp_path / "short", b"secret")
    with pytest.raises(UserError, match="6 bytes"):
        read_key(private, str(tmp_path / "short"))


def test_pseudonyms_are_keyed_and_of_one_data_set() -> None:
    a, b, c = Pseudonyms(KEY, "d"), Pseudonyms(KEY[::-1], "d"), Pseudonyms(KEY, "e")
    assert a.patient("Meier") == Pseudonyms(KEY, "d").patient("Meier")
    made = {one.patient("Meier") for one in (a, b, c)} | {a.scan("Meier"), a.site("Meier")}
    assert len(made) == 5
    assert a.patient("") == a.site("") == a.value("x", "") == ""
    assert len({a.mark(), b.mark()}) == 2
    # RFC 2104 over SHA-256, by another implementation.
    block = KEY.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(x ^ 0x36 for x in block) + b'["scan","d","a/b.png"]').digest()
    outer = hashlib.sha256(bytes(x ^ 0x5C for x in block) + inner).hexdigest()
    assert a.scan("a/b.png") == outer[:16]


def test_dates() -> None:
    assert str(day_of("20240229")) == str(day_of("2024-02-29T10:11:12")) == "2024-02-29"
    assert str(day_of("20240229101500.123+0100")) == "2024-02-29"
    assert day_of("20230229") is day_of("12345678") is day_of("1.2.3") is day_of("") is None
    assert are_dates(["", "2024-01-01"])
    assert not are_dates(["", ""])
    assert not are_dates(["2024-01-01", "x"])
    told = offsets(["a", "a", "b", "", "a"], ["20240103", "20240101", "20250101", "20240101", ""])
    assert told == [2, 0, 0, None, None]


def test_reasons_keep_our_words_alone() -> None:
    assert (
        own_words("holds no image (SR)") == "holds no image"
    )  # no word of ours: a modality is a file's word
    assert own_words("damaged (cannot identify '/data/Meier/1.png')") == "damaged"
    assert own_words("the file is empty (0 bytes)") == "the file is empty (0 bytes)"
    assert own_words("has no pixels (0 x 12)") == "has no pixels (0 x 12)"
    assert (
        own_words("its slices have different units (HU, Meier)")
        == "its slices have different units"
    )
    assert own_words("no such file Meier 19570612") == "no such file ... ..."


def test_words_of_lists() -> None:
    assert modality_of(" ct ") == "CT"
    assert modality_of("Meier") == "other"
    assert maker_of("SIEMENS Healthineers") == "siemens"
    assert maker_of("GE MEDICAL SYSTEMS") == "ge"
    assert maker_of("Gerhard Meier") == maker_of("") == ""


def test_the_index_has_what_the_allow_list_names(made) -> None:
    lab, _ = made
    index = read_table(lab.converted()[0] / "index.parquet", "index")
    assert set(index.columns) - {"sha256"} <= set(PASSED_ON)
    assert (index["sha256"] == "").all()
    assert "chunk" in read_metadata(lab.converted()[0] / "index.parquet")


def test_the_profile_is_whole() -> None:
    """Against facts of PS3.15 table E.1-1 that anyone can look up."""
    import pydicom

    rows = {tag: (name, action) for tag, name, action, _ in profile()}
    assert len(rows) == len(profile()) == 657
    assert {action for _, action in rows.values()} == {
        "D", "U", "X", "X/D", "X/Z", "X/Z/D", "X/Z/U*", "Z", "Z/D"
    }  # fmt: skip
    assert rows["0010,0010"] == ("Patient's Name", "Z")
    assert rows["0010,0020"] == ("Patient ID", "Z/D")
    assert rows["0008,0018"] == ("SOP Instance UID", "U")
    assert rows["0008,1030"] == ("Study Description", "X")
    assert rows["0008,0080"][1] == "X/Z/D"
    for tag, (name, _) in rows.items():
        # What is newer than pydicom's dictionary is not in it; two names lack a space there.
        number = None if set(tag.lower()) & set("xg") else int(tag.replace(",", ""), 16)
        if number is not None and pydicom.datadict.dictionary_has_tag(number):
            known = pydicom.datadict.dictionary_description(number)
            assert known.replace(" ", "") == name.replace(" ", "")
    # Added after 2024b: 2024, 2025, 2026.
    assert rows["300A,0054"] == ("Table Top Position Alignment UID", "U")
    assert rows["0010,0012"] == ("Name to Use", "X")
    assert rows["0070,0006"] == ("Unformatted Text Value", "D")
    assert is_listed(0x0010, 0x0012)
    assert is_listed(0x0010, 0x0010)
    assert is_listed(0x0009, 0x1001)
    assert is_listed(0x6002, 0x3000)
    assert not is_listed(0x0028, 0x0010)
    # Image Position and Image Orientation (Patient), which the affine is made of.
    assert not any(is_listed(0x0020, element) for element in (0x0032, 0x0037))
    listed = set(
        Path(__file__).parents[1].joinpath("docs/privacy.md").read_text(encoding="utf-8").split("`")
    )
    assert set(PASSED_ON) <= listed


def test_a_header_that_cannot_be_read_says_nothing(tmp_path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    assert header.read_header(path).modality == ""
    assert header.read_header(tmp_path / "none") == header.Header()


def test_who_it_was_is_told_to_those_who_hold_the_table(
    made, tmp_path, capsys, monkeypatch
) -> None:
    lab, _ = made
    monkeypatch.chdir(lab.folder)
    told = table.read(table.table_path(lab.work / "private", "d"), table.TABLE)
    config = tmp_path / "c.yaml"
    config.write_text(f"work: {lab.work}\ndatasets: {{d: {{root: raw, table: labels.csv}}}}\n")
    row = told[told["patient_key"].ne("") & told.duplicated("patient_key")].iloc[0]
    of_patient = int(told["patient_key"].eq(row["patient_key"]).sum())
    for asked, lines in ((row["scan"][:10], 1), (row["patient_key"], of_patient)):
        assert main(["who", asked, "--configfile", str(config)]) == 0
        said = capsys.readouterr().out.splitlines()
        assert len(said) == lines
        assert any(row["path"] in line and row["patient"] in line for line in said)
    assert main(["who", "nobody", "--configfile", str(config)]) == 2
    assert "nobody" in capsys.readouterr().err
