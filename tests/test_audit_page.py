"""The audit's page, data sheet and CLAIM list: what they say, and what they must not say."""

from __future__ import annotations

import csv
import json
import logging
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from audit_factory import picture
from PIL import Image

from fewscans.config.stages import AuditPageParams
from fewscans.privacy.annex_e import profile
from fewscans.report import claim, datasheet
from fewscans.report.audit import TITLES
from fewscans.report.audited import Names, read_audited
from fewscans.report.shots import SIDE, shot
from scripts import audit as audit_script
from scripts import audit_page as script
from scripts import convert
from tests import browser
from tests.test_report import Parsed

logging.getLogger("fewscans").setLevel(logging.WARNING)

NASTY = "<script>alert('1')</script>"
SECRET = "Doe^Jane"
SAID = {"licence": "CC BY 4.0 *", "funding": "A | B <b>"}


def write_scans(root: Path) -> list[list[str]]:
    """A folder of PNGs with a table: twins across the split, a torn patient, a copy, a small one, a broken one."""
    rows = []
    made: dict[str, np.ndarray] = {f"{SECRET}/{i:02d}.png": picture(i)[0] for i in range(40)}
    for i, path in enumerate(made):
        part = "test" if i < 10 else "train"
        rows.append(
            [path, ["benign", NASTY][i % 2], f"{SECRET} {i}", part, "North" if i % 3 else "South"]
        )
    made["twin.png"] = made[f"{SECRET}/00.png"] * 0.9
    rows.append(["twin.png", NASTY, "twin", "train", "North"])
    made["copy.png"] = made[f"{SECRET}/20.png"]
    rows.append(["copy.png", "benign", "copied", "train", "North"])
    for i in range(2):
        made[f"torn{i}.png"] = picture(50 + i)[0]
        rows.append([f"torn{i}.png", ["benign", NASTY][i], "torn", "train", "South"])
    made["small.png"] = picture(60, (20, 40))[0]
    rows.append(["small.png", "benign", "small", "train", "South"])
    rows.append(["broken.png", "benign", "broken", "train", "South"])
    for path, pixels in made.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / path)
    (root / "broken.png").write_bytes(b"no picture")
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what the scripts wrote."""
    folder = tmp_path_factory.mktemp("audit")
    rows = write_scans(folder / "raw")
    with open(folder / "raw/labels.csv", "w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows([["path", "label", "patient", "split", "site"], *rows])
    place = {"dataset": "d", "root": str(folder / "raw"), "table": str(folder / "raw/labels.csv")}
    run(convert, json.dumps(place), "--out", folder / "converted")
    labels = ["--labels", folder / "labels.parquet"]
    given = ["--converted", folder / "converted", *labels]
    run(audit_script, json.dumps({**place, "split": "official"}), *given, "--out", folder / "audit")
    params = {
        "dataset": "d",
        "datasheet": SAID,
        "modality": "ct",
        "source": "ask",
        "split": "official",
    }
    for name in ("once", "again"):
        out = folder / name
        files = [
            "--page",
            out / "page.html",
            "--shown",
            out / "shown.html",
            "--sheet",
            out / "sheet",
        ]
        run(script, json.dumps(params), *given, "--audit", folder / "audit", *files)
    return folder


def run(module: ModuleType, params: str, *words: object) -> None:
    assert module.main(["--params", params, *map(str, words)]) == 0


def texts(made: Path) -> dict[str, str]:
    return {
        path.name: path.read_text(encoding="utf-8") for path in sorted((made / "once").iterdir())
    }


def sheet(made: Path) -> Any:
    return json.loads(texts(made)["sheet.json"])


def test_the_same_bytes_again(made: Path) -> None:
    assert sorted(texts(made)) == [
        "page.html", "sheet.claim.md", "sheet.json", "sheet.md", "shown.html",
    ]  # fmt: skip
    for path in (made / "once").iterdir():
        assert (made / "again" / path.name).read_bytes() == path.read_bytes()


def test_what_may_be_shown_names_no_file_and_no_patient(made: Path) -> None:
    found = texts(made)
    assert SECRET in found.pop("page.html")
    for name, text in found.items():
        for word in (SECRET, ".png", "torn", "twin.", "copied", str(made)):
            assert word not in text, (name, word)
    for name in ("sheet.json", "sheet.md", "sheet.claim.md"):
        assert "North" not in found[name]  # sites are counted there


def test_the_page_shows_contradictions_side_by_side(made: Path) -> None:
    page = texts(made)["page.html"]
    part = page.split('id="contradictions"')[1].split('id="duplicates"')[0]
    words = " ".join("".join(Parsed(f"<p {part}").text).split())
    assert f"{SECRET}/00.png" in words
    assert "labelled 'benign', test part" in words
    assert "twin.png" in words
    assert f"labelled '{NASTY}', train part" in words
    assert part.count("<img") == 2
    assert "torn0.png, labelled 'benign', but torn1.png of the same patient is labelled" in words
    other = page.split("In two patients</h3>")[1].split("<h2")[0]
    assert other.count("<img") == 2
    assert "same pixels" in other
    looks = page.split('id="looks"')[1].split('id="balance"')[0]
    assert TITLES["tiny"] in looks
    assert "small.png" in looks


def test_nothing_from_outside_becomes_markup(made: Path) -> None:
    for name in ("page.html", "shown.html"):
        text = texts(made)[name]
        tags = Parsed(text).tags
        assert "script" not in {tag for tag, _ in tags}
        assert not [key for _, attributes in tags for key in attributes if key.startswith("on")]
        for _, attributes in tags:
            for key in ("src", "href"):
                assert (attributes.get(key) or "#").startswith(("data:", "#"))
        ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
        assert {str(a["href"])[1:] for tag, a in tags if tag == "a"} <= ids


def test_the_data_sheet_counts_and_leaves_open_what_only_the_user_knows(made: Path) -> None:
    facts = sheet(made)["facts"]
    assert facts["files"] == 46
    assert facts["left_out"] == {"unreadable": 1}
    assert (facts["scans"], facts["labelled"], facts["unlabelled"]) == (45, 42, 3)
    assert facts["patients"] == 44
    assert facts["groups"] == 42
    assert facts["sites"] == 2
    assert facts["official_parts"] == {"test": 10, "train": 35}
    assert facts["width_px"] == [40, 40, 40]
    assert facts["height_px"] == [20, 48, 48]
    assert facts["labels_taken_out"] == 3
    assert facts["twins_across_the_split"] == 1
    assert facts["duplicate_pairs"] == {"exact": 1, "near": 1}
    # As section 3 of the paper has them.
    headings = ["Motivation", "Composition", "Collection process", "Preprocessing/cleaning/labeling", "Uses",
                "Distribution", "Maintenance"]  # fmt: skip
    assert [section["heading"] for section in sheet(made)["sections"]] == headings
    text = texts(made)["sheet.md"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == headings
    assert "CC BY 4.0 \\*" in text
    assert "A \\| B \\<b>" in text
    assert "<script" not in text.replace("\\<", "")
    asked = {field for entries in datasheet.ASKED.values() for _, field in entries}
    assert len(re.findall(r"To be filled in", text)) == len(asked - set(SAID))


def test_every_field_of_the_config_has_its_question() -> None:
    from typing import get_args

    from fewscans.config.models import DatasetSettings, DatasheetField

    fields = [field for entries in datasheet.ASKED.values() for _, field in entries]
    assert sorted(fields) == sorted(get_args(DatasheetField))
    said = str(DatasetSettings.model_fields["datasheet"].description)
    for field in ("purpose", "funding", "collection", "ethics", "consent", "uses"):
        assert f"`{field}`" in said


def test_the_claim_list_has_44_items_and_says_what_is_known(made: Path) -> None:
    rows = sheet(made)["claim_2024"]
    assert [row["item"] for row in rows] == list(range(1, 45))
    # Items of each part, and the first of it, as in the table of Tejani et al. 2024.
    parts = {
        "Title and abstract": (1, 2), "Introduction": (3, 2), "Study design": (5, 2), "Data": (7, 7),
        "Reference standard": (14, 5), "Data partitions": (19, 2), "Testing data": (21, 1), "Model": (22, 3),
        "Training": (25, 3), "Evaluation": (28, 7), "Results: data": (35, 2),
        "Results: performance of the model": (37, 3), "Discussion": (40, 2), "Other": (42, 3),
    }  # fmt: skip
    held: dict[str, list[int]] = {}
    for row in rows:
        held.setdefault(row["section"], []).append(row["item"])
    assert {part: (items[0], len(items)) for part, items in held.items()} == parts
    by_name = {row["asked"]: row for row in rows}
    # Items that are easily mistaken for their neighbours, or for those of the list of 2020, which had 42.
    for number, asked in {
        13: "Acquisition protocol", 18: "Variability between and within raters", 21: "Intended sample size",
        31: "Explainability", 34: "Trial registration", 39: "Analysis of failures", 44: "Funding, role of funders",
    }.items():  # fmt: skip
        assert by_name[asked]["item"] == number
    assert by_name["Patients and scans included and excluded"]["said"] == (
        "45 scans, 44 patients; 1 files left out, 3 labels taken out"
    )
    assert by_name["Funding, role of funders"]["said"] == SAID["funding"]
    assert by_name["External data"]["where"] == ""
    table = texts(made)["sheet.claim.md"]
    assert table.count("\n| ") == 44 + 2
    # A cell cannot break its row.
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}
    answers = set(claim._said(sheet(made)["facts"], sheet(made)["sections"]))
    assert answers <= set(by_name)


def test_unknown_patients_are_not_counted(made: Path) -> None:
    audited = read_audited(made / "labels.parquet", made / "audit", [made / "converted"])
    audited.facts["flags"] = ["no-patient-ids"]
    made_sheet = datasheet.datasheet(audited, AuditPageParams(dataset="d"))
    assert made_sheet["facts"]["patients"] is None
    assert "patients unknown" in datasheet.markdown(made_sheet)


def test_a_private_sheet_says_of_each_attribute_what_became_of_it(made: Path) -> None:
    audited = read_audited(made / "labels.parquet", made / "audit", [made / "converted"])
    sheets = [datasheet.datasheet(audited, AuditPageParams(dataset="d", private=p)) for p in (0, 1)]
    assert "dicom_profile" not in sheets[0]
    treated = {row["tag"]: row["treated"] for row in sheets[1]["dicom_profile"]["attributes"]}
    assert len(treated) == len(profile())
    assert treated["0010,0010"] == "never passed on"  # Patient's Name
    assert treated["0008,0022"].startswith("days from")  # Acquisition Date


def test_keys_stand_in_for_the_longest_name(made: Path) -> None:
    audited = read_audited(made / "labels.parquet", made / "audit", [made / "converted"])
    names = Names(audited, keys=True)
    key = audited.labels.set_index("path")["scan"]["torn1.png"][:10]
    assert names.message("but torn1.png of the same patient") == f"but {key} of the same patient"
    assert names.message("patient 'torn' is here") == "patient (patient) is here"
    assert Names(audited, keys=False).message("torn1.png") == "torn1.png"


def test_pictures_are_small_and_gray_whatever_the_scan() -> None:
    import base64
    import io

    def decoded(pixels: np.ndarray) -> np.ndarray:
        with Image.open(io.BytesIO(base64.b64decode(shot(pixels).partition(",")[2]))) as image:
            return np.asarray(image)

    rng = np.random.default_rng(0)
    wide = rng.normal(0, 400, (3, 100, 900)).astype(np.float32)
    assert decoded(wide).shape == (16, SIDE)
    volume = np.zeros((1, 5, 20, 30), np.float32)
    volume[:, 2] = np.arange(30)
    assert decoded(volume).shape == (20, 30)
    assert (np.diff(decoded(volume).astype(int), axis=1) >= 0).all()
    assert decoded(volume).max() == 255
    assert (decoded(np.full((1, 8, 8), 7, np.float32)) == 128).all()


@pytest.mark.skipif(browser.find() is None, reason="chromium is not installed (Debian: chromium)")
def test_the_page_opens_in_a_browser_by_day_and_by_night(made: Path) -> None:
    path = made / "once/page.html"
    with browser.page() as tab:
        tab.size(1200, 900)
        paper = {}
        for scheme in ("light", "dark"):
            wanted = [{"name": "prefers-color-scheme", "value": scheme}]
            tab.call("Emulation.setEmulatedMedia", features=wanted)
            tab.open(path)
            paper[scheme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert tab.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 26)"}
        for width in (1200, 390):
            tab.size(width, 844)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        # Two pictures of a pair stand beside each other, not one below the other.
        tops = (
            "[...document.querySelector('.two').children].map(e => e.getBoundingClientRect().top)"
        )
        first, second = tab.evaluate(tops)
        assert first == second
        assert tab.complaints() == []
        assert tab.requests() == [path.resolve().as_uri()]
