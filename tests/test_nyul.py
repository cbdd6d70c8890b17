"""Histogram standardisation: the arithmetic, by hand; whom it is fitted on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from recipe_factory import head, recipe

from fewscans.config import load
from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import NormaliseParams
from fewscans.contracts import write_table
from fewscans.convert.chunks import read_converted
from fewscans.errors import UserError
from fewscans.normalise import make_store, normalise_scan, nyul
from fewscans.normalise.foreground import foreground_mask
from fewscans.normalise.scan import landmarks_of
from fewscans.store import Store

PERCENT = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
LINE = np.linspace(0, 1, 11)


def by_hand_landmarks(image: np.ndarray) -> list[float]:
    """From sorted pixels of the foreground, linear between two."""
    pixels = sorted(image[0][foreground_mask(image[0], ct=False)].tolist())
    found = []
    for percent in PERCENT:
        place = (len(pixels) - 1) * percent / 100
        below = int(place)
        above = min(below + 1, len(pixels) - 1)
        found.append(pixels[below] + (place - below) * (pixels[above] - pixels[below]))
    return found


def by_hand_value(value: float, own: list[float], standard: list[float]) -> float:
    """The piece that it lies in; clipped beyond the outer ones."""
    if value <= own[0]:
        return 0.0
    for a, b, low, high in zip(own, own[1:], standard, standard[1:], strict=False):
        if value <= b:
            return low + (value - a) / (b - a) * (high - low)
    return 1.0


# -- the arithmetic --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 20), (16, 16, 16)])
def test_landmarks_and_map_are_those_by_hand(shape):
    rng = np.random.default_rng(3)
    scans = [(head(shape) * factor + rng.exponential(9, shape))[None] for factor in (1.0, 3.0, 0.2)]
    options = recipe(size=shape[0], ndim=len(shape), normalise="nyul")
    own = [by_hand_landmarks(scan) for scan in scans]
    for scan, expected in zip(scans, own, strict=True):
        np.testing.assert_allclose(landmarks_of(scan, options), expected)
    standard = [
        sum((one[k] - one[0]) / (one[10] - one[0]) for one in own) / len(own) for k in range(11)
    ]
    found = nyul.standard_landmarks([landmarks_of(scan, options) for scan in scans])
    np.testing.assert_allclose(found, standard)
    assert standard[5] != pytest.approx(0.5, abs=0.05)
    for scan, one in zip(scans, own, strict=True):
        made = normalise_scan(scan, (), options, standard=found)
        expected = [by_hand_value(value, one, standard) for value in scan.ravel()]
        np.testing.assert_allclose(made.x.ravel(), expected, atol=1e-9)
        assert np.isnan(made.bounds).all()


def body(seed: int = 0) -> np.ndarray:
    """[1, 96, 20]: 1001 pixels of 500 to 1000 on a black ground, so that each percentile is a pixel."""
    values = 500 + 500 * np.random.default_rng(seed).beta(2, 5, 1001)
    image = np.zeros((1, 96, 20))
    image[0, 8:85, 3:16] = values.reshape(77, 13)
    return image


def changed(image: np.ndarray, how: str) -> np.ndarray:
    """Its foreground by a monotone change of intensities, the ground left black."""
    inside = image > 0
    own = by_hand_landmarks(image)
    knots = np.cumsum(np.random.default_rng(1).uniform(20, 400, 11)) + 2000
    curves = {
        "gain and offset": lambda x: 7.5 * x + 123,
        "piecewise linear": lambda x: np.interp(x, own, knots) + np.where(x > own[-1], x, 0),
        "gamma": lambda x: 3000 * (x / 1000) ** 3,
    }
    return np.where(inside, curves[how](image), 0)


@pytest.mark.parametrize("how", ["gain and offset", "piecewise linear"])
def test_a_monotone_change_of_a_histogram_is_undone(how):
    options = recipe(size=96, normalise="nyul")
    standard = nyul.standard_landmarks([landmarks_of(body(seed), options) for seed in (5, 6, 7)])
    image, other = body(), changed(body(), how)
    assert foreground_mask(image[0], ct=False).sum() == 1001
    assert (foreground_mask(other[0], ct=False) == (image[0] > 0)).all()
    one = normalise_scan(image, (), options, standard=standard).x
    two = normalise_scan(other, (), options, standard=standard).x
    np.testing.assert_allclose(one, two, atol=1e-9)
    assert 0.1 < one[one > 0].std() < 0.4


def test_what_lies_between_landmarks_is_nearly_undone_and_two_percentiles_do_not_do_it():
    gamma, apart = changed(body(), "gamma"), {}
    for rule in ("nyul", "percentile"):
        options = recipe(size=96, normalise=rule)
        standard = LINE if rule == "nyul" else None
        made = [normalise_scan(one, (), options, standard=standard).x for one in (body(), gamma)]
        apart[rule] = np.abs(made[0] - made[1]).max()
    assert apart["nyul"] < 0.02
    assert apart["percentile"] > 0.1


def test_a_scan_without_a_scale_is_scaled_by_its_ends_and_a_constant_one_is_dark():
    options = recipe(normalise="nyul")
    constant = np.full((1, 16, 16), 7.0)
    assert not nyul.has_scale(landmarks_of(constant, options))
    np.testing.assert_array_equal(normalise_scan(constant, (), options, standard=LINE).x, 0)
    flat = np.zeros((1, 64, 64))
    flat[0, 4:60, 4:60] = 100  # 3136 pixels, and five that are brighter
    flat[0, 30, 30:35] = 200
    assert not nyul.has_scale(landmarks_of(flat, options))
    x, _, bounds, _ = normalise_scan(flat, (), recipe(size=64, normalise="nyul"), standard=LINE)
    assert bounds == (100, 200)
    assert (x[0, 30, 30], x[0, 10, 10], x[0, 0, 0]) == (1, 0, 0)


def test_a_peak_of_the_histogram_goes_to_the_middle_of_its_landmarks():
    own = np.array([0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 7], float)
    made = nyul.standardise(np.array([-1, 0, 1, 2, 2.5, 6, 7, 9]), own, LINE)
    np.testing.assert_allclose(made, [0, 0, 0.1, 0.3, 0.4, 0.8, 1, 1])


def test_a_recipe_that_is_fitted_asks_for_landmarks():
    with pytest.raises(ValueError, match="there are no landmarks"):
        normalise_scan(body(), (), recipe(normalise="nyul"))


def test_it_goes_with_every_other_step():
    colour = np.stack([head() * factor for factor in (1.0, 0.8, 0.5)])
    options = recipe(normalise="nyul", channels=3, foreground=True, n4=2, clahe=0.01, fit="crop")
    x = normalise_scan(colour, (), options, standard=LINE).x
    assert x.shape == (3, 16, 16)
    assert x[0].mean() > x[2].mean()
    assert 0 <= x.min() < 0.2 < 0.8 < x.max() <= 1


# -- the setting -----------------------------------------------------------------------------------


def test_within_is_the_foreground_and_the_whole_scan_is_refused():
    config = {"datasets": {"d": {"root": "x"}}, "recipes": {"a": {"normalise": "nyul"}}}
    assert load(config, "config").recipes["a"].in_foreground
    config["recipes"]["a"]["within"] = "foreground"
    load(config, "config")
    config["recipes"]["a"]["within"] = "scan"
    with pytest.raises(UserError, match=r"recipes\.a\.within +`nyul` measures in the foreground"):
        load(config, "config")


def test_a_store_that_is_not_fitted_has_no_new_word_in_its_settings():
    plain = NormaliseParams(dataset="d", recipe=recipe())
    assert set(plain.model_dump(mode="json")) == {"dataset", "recipe"}
    assert plain.model_copy(update={"fold": "0"}).model_dump()["fold"] == "0"


# -- whom it is fitted on --------------------------------------------------------------------------


def write_folds(path: Path, roles: dict[str, dict[str, str]]) -> Path:
    """`folds.parquet` of fold -> scan -> role; each scan is a group."""
    rows = [
        {"scan": scan, "group": f"g-{scan}", "fold": fold, "role": role}
        for fold, of in roles.items()
        for scan, role in of.items()
    ]
    write_table(path, "folds", pd.DataFrame(rows))
    return path


class Cohort:
    """Eight scans with histograms of their own, and folds 0 and 1 that each test four."""

    def __init__(self, scan_folder, make_converted, tmp_path: Path) -> None:
        self.root = scan_folder(8, kinds=["png16"])
        self.make_converted, self.folder = make_converted, tmp_path
        for number, path in enumerate(sorted((self.root / "images").iterdir())):
            self.change(path, number)
        self.converted = make_converted(self.root)
        index, _ = read_converted([self.converted])
        names = index["path"].map(lambda path: Path(path).name)
        self.scan_of = dict(zip(names, index["scan"], strict=True))
        self.scans = sorted(self.scan_of.values())
        halves = {"0": self.scans[:4], "1": self.scans[4:]}
        self.train = {fold: sorted({*self.scans} - {*tested}) for fold, tested in halves.items()}
        self.folds = write_folds(tmp_path / "folds.parquet", {
            fold: {s: "test" if s in tested else "train" for s in self.scans}
            for fold, tested in halves.items()
        })  # fmt: skip

    def change(self, path: Path, power: float) -> None:
        """Another histogram for the scan at `path`."""
        pixels = np.asarray(Image.open(path)) / 65535
        Image.fromarray(np.rint(pixels ** (1 + power / 4) * 65535).astype(np.uint16)).save(path)

    def store(self, fold: str | None, name: str, folds=None) -> Store:
        params = NormaliseParams(dataset="d", recipe=recipe(normalise="nyul"), fold=fold)
        out = self.folder / name
        made = [self.folds] if folds is None else folds
        make_store(params, [self.converted], out, made)
        return Store.open(out)


@pytest.fixture
def cohort(scan_folder, make_converted, tmp_path) -> Cohort:
    return Cohort(scan_folder, make_converted, tmp_path)


def test_stores_of_folds_are_fitted_on_their_training_scans_and_differ(cohort):
    stores = {fold: cohort.store(fold, fold) for fold in ("0", "1")}
    index, read_pixels = read_converted([cohort.converted])
    for fold, store in stores.items():
        said = store.facts["fitted"]
        assert (said["fold"], said["scans"], said["n"]) == (fold, cohort.train[fold], 4)
        own = [
            by_hand_landmarks(np.asarray(read_pixels(row), float))
            for row in index.to_dict("records")
            if row["scan"] in cohort.train[fold]
        ]
        expected = np.mean([(np.array(o) - o[0]) / (o[-1] - o[0]) for o in own], axis=0)
        np.testing.assert_allclose(said["landmarks"], expected)
        for row in index.to_dict("records"):
            x = normalise_scan(read_pixels(row), (), recipe(normalise="nyul"), None, expected).x
            np.testing.assert_allclose(store.read([row["scan"]])[0], x, atol=1e-4)
    one, two = stores.values()
    assert one.facts["fitted"]["landmarks"] != two.facts["fitted"]["landmarks"]
    assert not set(one.digests(cohort.scans)) & set(two.digests(cohort.scans))


def test_a_changed_test_scan_changes_no_landmark_and_a_training_scan_does(cohort):
    before = cohort.store("0", "before")
    named = {scan: name for name, scan in cohort.scan_of.items()}
    tested = cohort.scans[0]
    cohort.change(cohort.root / "images" / named[tested], 9)
    cohort.converted = cohort.make_converted(cohort.root)
    after = cohort.store("0", "after")
    said = [json.dumps(store.facts["fitted"]).encode() for store in (before, after)]
    assert said[0] == said[1]
    moved = [s for s in cohort.scans if before.digests([s]) != after.digests([s])]
    assert moved == [tested]
    cohort.change(cohort.root / "images" / named[cohort.train["0"][0]], 9)
    cohort.converted = cohort.make_converted(cohort.root)
    last = cohort.store("0", "last")
    assert last.facts["fitted"]["landmarks"] != after.facts["fitted"]["landmarks"]
    assert last.facts["fitted"]["digest"] != after.facts["fitted"]["digest"]


def test_the_same_scans_give_the_same_bytes_whatever_the_order_of_the_folds(cohort):
    one = cohort.store("0", "one")
    folds = pd.read_parquet(cohort.folds)
    write_table(cohort.folder / "other.parquet", "folds", folds[::-1].reset_index(drop=True))
    two = cohort.store("0", "two", [cohort.folder / "other.parquet"])
    for name in ("voxels.npy", "rows.parquet", "store.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def test_a_pool_is_fitted_on_what_joins_every_fold_and_fold_all_on_everything(cohort):
    scans = cohort.scans
    joins = dict.fromkeys(scans, "pool")
    copy = {**joins, scans[2]: "excluded"}
    own = {"m": "train", "n": "test"}
    one = write_folds(cohort.folder / "one.parquet", {"0": {**own, **joins}, "1": {**own, **copy}})
    two = write_folds(
        cohort.folder / "two.parquet", {"official": {**own, **joins, scans[5]: "excluded"}}
    )
    of = lambda *folds: cohort.store(None, "pool", folds).facts["fitted"]["scans"]  # noqa: E731
    assert of(one) == sorted({*scans} - {scans[2]})
    assert of(one, two) == sorted({*scans} - {scans[2], scans[5]})
    assert of() == scans
    assert cohort.store("all", "all").facts["fitted"]["scans"] == scans


def test_what_cannot_be_fitted_on_is_said(cohort):
    with pytest.raises(UserError, match=r"no fold '7' of data set d\. Known: 0, 1"):
        cohort.store("7", "x")
    with pytest.raises(UserError, match="fold 0: --folds is missing"):
        cohort.store("0", "x", [])
    others = write_folds(cohort.folder / "o.parquet", {"0": {"a": "train", "b": "test"}})
    with pytest.raises(UserError, match="data set d, fold 0: no scan to fit `normalise: nyul` on"):
        cohort.store("0", "x", [others])


def test_constant_scans_are_stored_and_fit_nothing(cohort):
    scan = cohort.train["0"][1]
    name = next(name for name, one in cohort.scan_of.items() if one == scan)
    Image.fromarray(np.full((20, 20), 900, np.uint16)).save(cohort.root / "images" / name)
    cohort.converted = cohort.make_converted(cohort.root)
    store = cohort.store("0", "x")
    said = store.facts["fitted"]
    assert (said["n"], said["constant"]) == (3, 1)
    assert scan not in said["scans"]
    np.testing.assert_array_equal(store.read([scan]), 0)


def test_the_script_takes_the_table_of_folds(cohort, script):
    params = NormaliseParams(dataset="d", recipe=RecipeSettings(size=16, normalise="nyul"), fold="1")  # fmt: skip
    out = cohort.folder / "by-script"
    arguments = ["--params", params.model_dump_json(), "--converted", str(cohort.converted)]
    arguments += ["--folds", str(cohort.folds), "--out", str(out)]
    assert script("normalise").main(arguments) == 0
    assert Store.open(out).facts["fitted"]["scans"] == cohort.train["1"]
