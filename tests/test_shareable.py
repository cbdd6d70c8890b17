"""What may leave the house is gathered whole, holds nothing else, and is not made where a name stands in it."""

from __future__ import annotations

import csv
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from privacy_factory import logged
from results_factory import make_results
from series_factory import write_cohort
from test_privacy import KEY, holding, wrapped
from workflows import make_clone

from fewscans.contracts import COLUMNS, read_metadata, read_table
from fewscans.files import sha256_file, write_text
from fewscans.privacy import table
from fewscans.privacy.files import write_private
from fewscans.privacy.search import names_of, search
from fewscans.privacy.shareable import MANIFEST, TABLES
from scripts import shareable

PATIENT, PLACE = "Zqx0001plant", "/home/somebody/scans"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions, labels and a plan."""
    folder = tmp_path_factory.mktemp("finished")
    make_results(folder, n_patients=9)
    return folder


@pytest.fixture
def made(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Finished results of a private data set `phantom`, as the rules before leave them."""
    folder = tmp_path / "here"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    for name in TABLES:
        write_text(Path("results", name), f"{name}\n")
    for name in ("roc.png", "roc.pdf", "roc.csv"):
        write_text(Path("results/figures/phantom", name), "a figure\n")
    for end in (".md", ".json", ".claim.md"):
        write_text(Path(f"results/datasheet/phantom{end}"), "a data sheet\n")
    write_text(Path("results/audit/phantom.html"), "pictures of scans")
    write_text(Path("logs/convert/phantom.log"), "a log")
    write_private(Path("work/private/key"), KEY)
    row = dict.fromkeys(table.TABLE, "x") | {"patient": PATIENT, "identifiers": ["Meier^Ute"]}
    row |= {"path": "train/Zqx0002plant_1.dcm", "date": "19570612"}
    table.write(Path("work/private/phantom.parquet"), table.TABLE, [row])
    return folder


def gather(folder: Path) -> tuple[int, str]:
    """(exit code, what the log says)."""
    params = {
        "datasets": ["phantom"],
        "hidden": ["phantom"],
        "private": "work/private",
        "places": [PLACE],
    }
    words = ["--plan", "work/plan.json", "--results", "results", "--out", "results/shareable"]
    with logged(folder / "log"):
        code = shareable.main(["--params", json.dumps(params), *words])
    return code, (folder / "log").read_text()


def test_what_is_in_it_and_nothing_else(made: Path) -> None:
    assert gather(made) == (0, "")
    out = made / "results/shareable"
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    runs = json.loads((made / "work/plan.json").read_text())["runs"]
    predictions = {
        f"predictions/{r['encoder']}/{r['recipe']}/{r['dataset']}/{r['fold']}/{r['seed']}.parquet"
        for r in runs
    }
    assert found == {
        *TABLES, *predictions, "figures/phantom/roc.png", "figures/phantom/roc.pdf", "figures/phantom/roc.csv",
        "datasheet/phantom.md", "datasheet/phantom.json", "datasheet/phantom.claim.md", "config.json",
        "versions.json", "README.md", MANIFEST,
    }  # fmt: skip
    one = out / sorted(predictions)[0]
    assert list(read_table(one, "predictions")) == list(COLUMNS["predictions"])
    assert set(read_metadata(one)) == {"task", "classes"}
    assert not {"work", "results", "data_root"} & set(json.loads((out / "config.json").read_text()))
    assert json.loads((out / "versions.json").read_text())["packages"]["pydicom"]
    with open(out / MANIFEST, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["file"] for row in rows} == found - {MANIFEST}
    assert all(row["sha256"] == sha256_file(out / row["file"]) for row in rows)


def test_the_same_bytes_again(made: Path) -> None:
    gather(made)
    first = {
        path: path.read_bytes()
        for path in (made / "results/shareable").rglob("*")
        if path.is_file()
    }
    gather(made)
    assert {path: path.read_bytes() for path in first} == first


@pytest.mark.parametrize("name", wrapped(PATIENT))
def test_a_name_in_any_wrapping_stops_it(made: Path, name: str) -> None:
    Path("results/figures/phantom", name).write_bytes(wrapped(PATIENT)[name])
    code, said = gather(made)
    assert code == 2
    assert f"figures/phantom/{name}" in said
    assert "patient" in said
    assert PATIENT not in said
    assert not (made / "results/shareable").exists()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1957-06-12", "date"), ("19570612", "date"), ("Meier^Ute", "identifier"), ("Meier", "identifier"),
        ("Zqx0002plant_1", "path"), (PLACE, "a path of this machine"), (KEY.hex(), "key of pseudonyms"),
    ],
)  # fmt: skip
def test_other_things_that_stop_it(made: Path, text: str, kind: str) -> None:
    write_text(Path("results/datasheet/phantom.md"), f"by {text}.\n")
    code, said = gather(made)
    assert code == 2
    assert f"datasheet/phantom.md  holds what the private table has as {kind}" in said
    assert text not in said


def test_the_name_of_a_file_stops_it_and_is_not_said(made: Path) -> None:
    write_text(Path(f"results/figures/phantom/{PATIENT}.csv"), "a")
    code, said = gather(made)
    assert code == 2
    assert "the name of a file" in said
    assert PATIENT not in said


def test_parts_of_words_and_words_of_ours_do_not(made: Path) -> None:
    write_text(Path("results/datasheet/phantom.md"), f"x{PATIENT}x Meierhof 119570612\n")
    assert gather(made)[0] == 0


@pytest.mark.slow
def test_a_whole_run_of_private_series_in_3d(
    tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    """As typed: from folders of slices to what is shared, searched for every name of the private table."""
    clone = make_clone(tmp_path / "clone")
    write_cohort(clone.folder / "series", write_dicom, name="Zqx-")
    # An official split, since one fold is enough of each arm.
    labels = pd.read_csv(clone.folder / "series/labels.csv", dtype=str)
    labels["split"] = ["train"] * 8 + ["test"] * 4
    labels.to_csv(clone.folder / "series/labels.csv", index=False)
    networks = {"simclr": "monai-test-resnet", "mae": "monai-test-vit", "simsiam": "inflated-test_resnet"}  # fmt: skip
    clone.config(
        datasets={"tiny": {"root": "series", "table": "labels.csv", "modality": "ct", "split": "official"}},
        recipes={"vox16": {"ndim": 3, "size": 16, "normalise": "window", "window_hu": [-200, 300]}},
        encoders={
            method: {"method": method, "backbone": backbone, "steps": 2, "batch_size": 4}
            | ({"patch_size": 4} if "vit" in backbone else {})
            for method, backbone in networks.items()
        },
        baselines=["majority", "random", "scratch"], protocol_settings={"finetune": {"steps": 2}},
    )  # fmt: skip
    clone.run("--cores", "1", "shareable", timeout=1800)
    table = pd.read_csv(clone.folder / "results/ablation_table.csv")
    arms = [f"{method}.vox16.{how}" for method in networks for how in ("linear", "finetune")]
    for name in ("monai-test-resnet", "monai-test-vit-p4", "inflated-test-resnet"):
        arms += [f"random-{name}.vox16.linear", f"scratch-{name}.vox16.finetune"]
    assert set(table["arm"]) == {"majority.vox16.prior", *arms}
    store = json.loads((clone.folder / "work/tiny/vox16/store/store.json").read_text())
    assert (store["n"], store["ndim"], store["size"]) == (12, 3, 16)
    out = clone.folder / "results/shareable"
    names = names_of([clone.folder / "work/private/tiny.parquet"])
    assert len(names) >= 36
    searched = [
        clone.folder / name for name in ("results", "logs", "work/predictions", "work/encoders")
    ]
    files = [path for folder in searched for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {
        ".html",
        ".pdf",
        ".png",
        ".csv",
        ".json",
        ".log",
        ".parquet",
    }
    assert not search(files, names)
    assert not holding(files, {"Zqx-": "patients"})
    assert not [path.name for path in files if str(tmp_path).encode() in path.read_bytes()]
    assert stat.S_IMODE((clone.folder / "work/private").stat().st_mode) == 0o700
    # A name that comes in is found, and what was shared before is gone.
    figure = next((out.parent / "figures/tiny").glob("*.csv"))
    figure.write_text(figure.read_text() + "# Zqx-00\n")
    done = clone.run("--cores", "1", "shareable", "--forcerun", "shareable", check=False)
    assert done.returncode != 0
    log = (clone.folder / "logs/shareable.log").read_text()
    assert f"figures/tiny/{figure.name}" in log
    assert "Zqx-" not in log
    assert not out.exists()
