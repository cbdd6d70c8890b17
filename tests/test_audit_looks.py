"""What the audit must find by looks and by counts: clipped, tiny, odd, outlying scans; sites and papers."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from audit_factory import Cohort, found, picture
from scipy.stats import median_abs_deviation, norm

from fewscans.audit.looks import FAR, measure, robust_z
from fewscans.config import load
from fewscans.errors import UserError

logging.getLogger("fewscans").setLevel(logging.WARNING)


def test_measures_of_a_picture_by_hand() -> None:
    gray = np.full((64, 96), 10, np.float32)
    gray[2:-2, 3:-3] = 30  # the frame is a 32nd of each side wide
    gray[20, 20:29] = 50
    made = measure(gray)
    n, inner = 64 * 96, 60 * 90
    assert made["mean"] == pytest.approx(gray.mean())
    assert made["spread"] == pytest.approx(gray.std())
    assert made["lowest"] == pytest.approx((n - inner) / n)
    assert made["highest"] == pytest.approx(9 / n)
    assert made["border"] == 0
    assert measure(60 - gray)["border"] == 1
    assert np.isnan(measure(np.ones((4, 5), np.float32))["border"])
    assert measure(np.stack([gray] * 3)) == pytest.approx(made)


def test_robust_scores_are_those_of_scipy_and_know_no_outlier() -> None:
    values = norm.rvs(size=4000, random_state=0)
    spread = median_abs_deviation(values, scale="normal")
    assert robust_z(values) == pytest.approx((values - np.median(values)) / spread, rel=1e-4)
    # Ten wild values hardly move the scores of the others, where a standard deviation would grow.
    wild = np.concatenate([values, np.full(10, 1e6)])
    assert robust_z(wild)[:4000] == pytest.approx(robust_z(values), abs=0.02)
    alike = np.array([1.0] * 30 + [2.0])
    assert robust_z(alike)[-1] > FAR
    assert (robust_z(alike[:30]) == 0).all()


def test_scans_unlike_the_others_are_named_with_what_is_unlike() -> None:
    cohort = Cohort()
    cohort.fill(40)
    cohort.add("dark.png", picture(1) - 90, "a", "dark")
    cohort.add("huge.png", picture(2, (60, 60)), "a", "huge", shape=[900, 900])
    cohort.add("small.png", picture(3, (24, 40)), "a", "small", shape=[24, 40])
    cohort.add("long.png", picture(4, (60, 60)), "a", "long", shape=[40, 160])
    bright = np.minimum(picture(5), 110)
    cohort.add("bright.png", bright, "a", "bright")
    mask = (picture(6) > 100).astype(np.float32)
    cohort.add("mask.png", mask, "a", "mask", unit="label")
    cohort.add("black.png", 0 * picture(7), "a", "black")
    made = cohort.audit()
    outliers = found(made, "outlier").set_index("path")
    # Clipping leaves a narrow spread; it is not far enough to be an outlier of its own.
    assert set(outliers.index) == {"dark.png", "huge.png", "long.png"}
    assert outliers.loc["dark.png", "message"].startswith("mean intensity 6.5, in the middle 99.9")
    assert "number of pixels 810000, in the middle 1920" in outliers.loc["huge.png", "message"]
    assert (outliers["value"] > FAR).all()
    assert outliers["value"].is_monotonic_decreasing
    assert found(made, "tiny")["path"].tolist() == ["small.png"]
    assert found(made, "tiny")["message"].iloc[0].startswith("40 x 24 pixels")
    assert found(made, "odd-shape")["path"].tolist() == ["long.png"]
    assert found(made, "clipped")["path"].tolist() == ["bright.png"]


def test_few_scans_say_nothing_of_what_is_usual() -> None:
    cohort = Cohort()
    cohort.fill(10)
    cohort.add("dark.png", picture(1) - 90, "a", "dark")
    assert found(cohort.audit(), "outlier").empty


def test_volumes_are_measured_by_their_planes() -> None:
    cohort = Cohort()
    for i in range(24):
        volume = np.stack([picture(i)[0], picture(100 + i)[0]])[None]
        cohort.add(f"{i:02d}.nii", volume, "ab"[i % 2], f"p{i}", shape=[2, 48, 40])
    cohort.add("copy.nii", cohort.pixels["03.nii"] * 2, "b", "other", shape=[2, 48, 40])
    made = cohort.audit()
    assert found(made, "tiny").empty
    assert made.duplicates[["path_a", "path_b"]].values.tolist() == [["03.nii", "copy.nii"]]
    assert found(made, "outlier")["path"].tolist() == ["copy.nii"]


def test_classes_by_site_and_part_are_counted_and_a_site_of_one_class_is_told() -> None:
    cohort = Cohort()
    for i in range(24):
        part = "test" if i < 4 else "train"
        cohort.add(f"{i:02d}.png", picture(i), "a" if i < 12 else "b", f"p{i}", part)
        cohort.table[-1]["site"] = ["north", "south"][i % 2] if i < 18 else "alone"
    made = found(cohort.audit(), "class-balance")
    assert made[["severity", "message"]].values.tolist() == [
        ["warning", "site 'alone': 0 'a', 6 'b'; the site tells the label"],
        ["warning", "split 'test': 4 'a', 0 'b'; no score of this class"],
        ["info", "site 'north': 6 'a', 3 'b'"],
        ["info", "site 'south': 6 'a', 3 'b'"],
        ["info", "split 'train': 8 'a', 12 'b'"],
    ]


def test_a_paper_on_both_sides_is_told() -> None:
    cohort = Cohort()
    for i in range(12):
        part = "test" if i < 6 else "train"
        cohort.add(f"{i:02d}.png", picture(i), "ab"[i % 2], f"p{i}", part)
        cohort.table[-1]["doi"] = {0: "", 1: "10.1/one", 7: "10.1/one", 8: ""}.get(i, f"10.1/{i}")
    made = cohort.audit(attributes=["doi"], origin="doi", split="official")
    (said,) = found(made, "origin-across-splits")["message"]
    assert said == "origin '10.1/one' is in the training and the test part"
    assert found(cohort.audit(attributes=["doi"]), "origin-across-splits").empty


def test_a_paper_is_a_column_that_is_read() -> None:
    place = {"root": "raw", "table": "t.csv", "origin": "doi"}
    with pytest.raises(UserError, match=r"datasets\.d\.origin.*must be one of `attributes`"):
        load({"datasets": {"d": place}, "recipes": {"r": {}}}, "c")


def test_manufacturer_and_border_are_tested_where_they_are_known() -> None:
    cohort = Cohort()
    for i in range(40):
        pixels = picture(i)
        if i % 2:
            pixels[:, 0], pixels[:, -1], pixels[..., 0], pixels[..., -1] = 300, 300, 300, 300
        maker = ["One", "Two"][(i + i // 20) % 2]
        cohort.add(f"{i:02d}.png", pixels, "ab"[i % 2], f"p{i}", manufacturer=maker)
    told = found(cohort.audit(), "shortcut").set_index("attribute")
    assert told.loc["border", "severity"] == "warning"
    assert told.loc["border", "value"] > 0.95
    assert told.loc["manufacturer", "severity"] == "info"


# What tells the class -> what the index says of a scan of each class; the ratio of sides follows from neither side.
SHORTCUTS = {
    "width": lambda i, kind: {"shape": [30 + 7 * i % 31, 40 + kind]},
    "height": lambda i, kind: {"shape": [48 + kind, 30 + 7 * i % 31]},
    "width height": lambda i, kind: {"shape": [48 * (1 + kind), 40 * (1 + kind)]},
    "spacing": lambda i, kind: {"spacing_mm": [0.5, 0.5 + 0.1 * kind]},
    "site": lambda i, kind: {"site": ["north", "south"][kind]},
}


@pytest.mark.parametrize("tells", SHORTCUTS)
@pytest.mark.parametrize("told", [True, False], ids=["told", "by chance"])
def test_size_spacing_and_site_are_warned_of_where_they_tell_and_no_other(
    tells: str, told: bool
) -> None:
    """Through the audit, on scans in which all of them vary; by chance each value has as many of both classes."""
    cohort = Cohort()
    for i in range(60):
        sizes = {
            "shape": [48 + i // 2 % 3, 40 + i // 2 % 5],
            "spacing_mm": [0.5, 0.5 + 0.1 * (i // 2 % 3)],
        }
        said = {
            **sizes,
            "site": f"site {i // 2 % 4}",
            **SHORTCUTS[tells](i, i % 2 if told else i // 2 % 2),
        }
        site = said.pop("site")
        cohort.add(f"{i:02d}.png", picture(i), "ab"[i % 2], f"p{i}", **said)
        cohort.table[-1]["site"] = site
    made = found(cohort.audit(), "shortcut").set_index("attribute")
    assert set(made.index) >= {"width", "height", "spacing", "site", "border", "all"}
    warned = made.index[made["severity"] == "warning"]
    assert set(warned) == ({*tells.split(), "all"} if told else set())
    assert (made.loc[warned, "value"] > 0.9).all()
