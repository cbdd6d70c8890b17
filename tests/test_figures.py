"""Figures: what they show is what the tables say, they can be read, and the same numbers give the same bytes."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from sklearn.metrics import roc_auc_score

from fewscans.config import ReportSettings
from fewscans.contracts import write_table
from fewscans.errors import UserError
from fewscans.figures import (
    NAMES,
    SUFFIXES,
    budget,
    draw_all,
    embeddings,
    forest,
    learning,
    names,
    paths_of,
    reconstructions,
    roc,
    style,
    views,
)
from fewscans.figures.inputs import Results
from tests.results_factory import ENCODERS, Made, make_plan, make_results

DRAW = {
    "forest": forest.draw, "budget": budget.draw, "roc": roc.draw, "learning": learning.draw,
    "embeddings": embeddings.draw, "views": views.draw, "reconstructions": reconstructions.draw,
}  # fmt: skip
MANY = {
    "classes": ("benign lesion", "malignant lesion", "normal"),
    "protocols": ["linear", "finetune", "knn"],
    "encoders": {**ENCODERS, "simmim": {"method": "simmim", "backbone": "test_resnet"}},
    "ablations": {"views": {"of": "simclr", "epochs": [50, 200], "size": [48, 64]}},
    "baselines": ["majority", "random", "scratch", "imagenet"],
    "n_patients": 27,
}
ONE = {"budgets": ["all"], "encoders": {"simclr": ENCODERS["simclr"]}, "protocols": ["linear"]}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_results(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module", params=["demo", "many", "one"])
def any_results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    if request.param == "demo":
        return request.getfixturevalue("demo").read()
    made = make_results(
        tmp_path_factory.mktemp(request.param), **(MANY if request.param == "many" else ONE)
    )
    return made.read()


def laid_out(figure: Figure) -> list[tuple[Text, np.ndarray]]:
    """Texts that are seen, with their boxes [[x0, y0], [x1, y1]] in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    style.lay_out(figure)
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    # Hidden axes keep their texts, and axes keep tick labels that lie outside of the view: these are not drawn.
    ticks = {
        id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in _labels(axis.majorTicks)
    }  # fmt: skip
    drawn = {
        id(label) for axes in figure.axes if axes.get_visible() and axes.axison
        for axis in (axes.xaxis, axes.yaxis) for label in _labels(axis._update_ticks())
    }  # fmt: skip
    texts = [
        t
        for t in texts
        if (id(t) in drawn if id(t) in ticks else t.axes is None or t.axes.get_visible())
    ]
    return [(t, t.get_window_extent(renderer).get_points()) for t in texts]


def _labels(ticks: list) -> list[Text]:
    return [label for tick in ticks for label in (tick.label1, tick.label2)]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_large_enough_within_the_page_and_does_not_overlap(
    any_results: Results, name: str
) -> None:
    with style.look() as look:
        figure, _ = DRAW[name](any_results, "phantom", look)
        boxes = laid_out(figure)
    assert style.NARROW_INCH <= figure.get_size_inches()[0] <= style.WIDE_INCH + 0.01
    assert min(text.get_fontsize() for text, _ in boxes) >= 7
    edge = figure.bbox.padded(1.5).get_points()
    outside = [t.get_text() for t, b in boxes if (b[0] < edge[0]).any() or (b[1] > edge[1]).any()]
    assert outside == []
    overlapping = []
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[i + 1 :]:
            shared = np.minimum(a[1], b[1]) - np.maximum(a[0], b[0])
            if (shared > 1.5).all():
                overlapping.append((one.get_text(), other.get_text()))
    assert overlapping == []


def test_all_files_are_made_and_the_same_numbers_give_the_same_bytes(
    demo: Made, tmp_path: Path
) -> None:
    results = demo.read()
    pngs = draw_all(results, "phantom", tmp_path, ReportSettings())
    assert list(pngs) == list(NAMES)
    assert {p.name for p in (tmp_path / "phantom").iterdir()} == {
        p.name for p in paths_of(".", "phantom")
    }
    for name in ("forest", "embeddings", "views"):  # lines and text, t-SNE, pictures
        with style.look() as look:
            style.save(*DRAW[name](results, "phantom", look), tmp_path / "again" / name)
        for suffix in SUFFIXES:
            first, again = (
                tmp_path / f"phantom/{name}.{suffix}",
                tmp_path / f"again/{name}.{suffix}",
            )
            assert first.read_bytes() == again.read_bytes(), again.name
    text = (tmp_path / "phantom/forest.pdf").read_bytes()
    assert text.startswith(b"%PDF")
    assert b"CreationDate" not in text
    assert b"Matplotlib" not in text
    assert b"Software" not in (tmp_path / "phantom/forest.png").read_bytes()


def test_another_palette_changes_no_number(demo: Made) -> None:
    results = demo.read()
    numbers = {}
    for palette in ("colorblind", "Set2"):
        with style.look(palette) as look:
            numbers[palette] = DRAW["forest"](results, "phantom", look)[1]
            first = look.colour(0)
    pd.testing.assert_frame_equal(numbers["colorblind"], numbers["Set2"])
    with style.look() as look:
        assert look.colour(0) != first


def test_a_palette_that_is_not_one_is_said_in_words() -> None:
    with (
        pytest.raises(UserError, match=r"report\.palette.*'rainbwo' is not a seaborn palette"),
        style.look("rainbwo"),
    ):
        pass


def test_no_colour_stands_alone() -> None:
    assert len(set(style.PROTOCOLS.values())) == len(
        {marker for marker, _ in style.PROTOCOLS.values()}
    )
    assert len({line for _, line in style.PROTOCOLS.values()}) == len(style.PROTOCOLS)
    kinds = [(kind["marker"], kind["filled"]) for kind in forest.VERDICTS.values()]
    assert len(set(kinds)) == len(kinds)


def test_numbers_behind_forest_and_budget_are_those_of_the_tables(demo: Made) -> None:
    results = demo.read()
    with style.look() as look:
        differences = DRAW["forest"](results, "phantom", look)[1]
        curves = DRAW["budget"](results, "phantom", look)[1]
    both = differences.merge(results.contrasts, on=["arm", "budget"], suffixes=("", "_told"))
    assert len(both) == len(differences) == len(results.contrasts)
    for column in ("diff", "low", "high"):
        np.testing.assert_array_equal(both[column], both[f"{column}_told"])
    both = curves.merge(results.scores, on=["arm", "budget"], suffixes=("", "_told"))
    np.testing.assert_array_equal(both["value"], both["value_told"])
    assert set(curves.arm) == set(results.arms)


def test_one_wild_interval_does_not_squeeze_the_others(demo: Made) -> None:
    results = demo.read()
    told = results.contrasts.copy()
    told.loc[0, ["low", "high"]] = [-1.8, 1.7]
    with style.look() as look:
        figure, numbers = forest.draw(dataclasses.replace(results, contrasts=told), "phantom", look)
    low, high = figure.axes[1].get_xlim()
    assert low > -0.5
    assert high < 0.5
    arrows = [
        line for axes in figure.axes for line in axes.get_lines() if line.get_marker() in ("<", ">")
    ]
    assert len(arrows) == 2
    assert numbers["high"].max() == 1.7  # the numbers behind are as they are


def test_scores_of_single_classes_are_left_out(demo: Made, tmp_path: Path) -> None:
    scores = pd.read_parquet(demo.scores)
    write_table(
        tmp_path / "scores.parquet",
        "scores",
        pd.concat([scores, scores.assign(**{"class": "benign", "value": 9.0})]),
    )
    found = dataclasses.replace(demo, scores=tmp_path / "scores.parquet").read().scores
    assert len(found) == len(scores)
    assert found["value"].max() <= 1


def test_the_workflow_declares_these_figures() -> None:
    text = (Path(__file__).resolve().parents[1] / "rules/common.smk").read_text()
    declared = re.search(r"^FIGURES = (\[.*\])$", text, flags=re.MULTILINE)
    assert declared
    assert set(ast.literal_eval(declared[1])) == set(NAMES)


def test_where_there_is_nothing_to_show_the_figure_says_so(tmp_path: Path) -> None:
    results = make_results(tmp_path, encoders={}, budgets=["12", "all"], n_patients=30).read()
    for name, reason in (("learning", "No encoder was pretrained"), ("reconstructions", "No method that fills in"),
                         ("views", "No encoder was pretrained")):  # fmt: skip
        with style.look() as look:
            figure, numbers = DRAW[name](results, "phantom", look)
        assert any(reason in text.get_text().replace("\n", " ") for text in figure.findobj(Text))
        assert numbers.empty
        assert len(numbers.columns) > 3


@pytest.mark.parametrize("name", ["$x^{$", "_hidden", "two\nlines\x00", "<b>", "", "long " * 30])
def test_class_names_from_outside_are_shown_as_they_are(name: str) -> None:
    with style.look():
        figure = style.new(3.5, 1)
        axes = figure.subplots()
        style.title(axes, style.shown(name), 3)
        style.legend_below(figure, [style.handle(style.shown(name), marker="o")])
        texts = [text.get_text() for text, _ in laid_out(figure)]
    kept = style.shown(name).strip()
    assert sum(kept in text.replace("\n", " ") for text in texts) == 2
    assert "\n" not in kept
    assert len(kept) <= 40


# -- ROC -----------------------------------------------------------------------------------------


def area(curve: np.ndarray) -> float:
    return float(np.trapezoid(curve, roc.GRID))


@pytest.mark.parametrize("n_negative", [10, 20, 50])
@pytest.mark.parametrize("decimals", [1, 12])
def test_area_under_a_curve_is_the_auroc(n_negative: int, decimals: int) -> None:
    rng = np.random.default_rng(n_negative)
    target = np.r_[np.ones(17), np.zeros(n_negative)].astype(int)
    score = (rng.normal(size=len(target)) + target).round(decimals)  # one decimal: many ties
    curve = roc._curve(target == 1, score)
    # Steps fall on the grid (10, 20, 50 divide 100); between two points of it a step is a ramp, half a cell wide.
    assert area(curve) == pytest.approx(roc_auc_score(target, score), abs=0.006)
    assert curve[-1] == 1
    assert (np.diff(curve) >= 0).all()


def test_patients_count_once_with_the_mean_over_their_scans() -> None:
    part = pd.DataFrame(
        {"patient": ["a", "a", "b", "b"], "target": [1, 1, 0, 1], "scan": list("wxyz")}
    )
    part["prob"] = [[0.2, 0.8], [0.6, 0.4], [0.9, 0.1], [0.3, 0.7]]
    target, prob = roc.by_unit(part, "patient")
    found = sorted(zip(target.tolist(), prob[:, 1].round(6).tolist(), strict=True))
    assert found == [(0, 0.1), (1, 0.6), (1, 0.7)]  # b has scans of two classes: once for each
    assert len(roc.by_unit(part, "scan")[0]) == 4


def test_curves_are_averaged_over_folds_not_scores() -> None:
    # Each fold is told apart perfectly, on scales that would mix if they were pooled.
    rows = []
    for fold, shift in (("0", 0.0), ("1", 0.5)):
        for i, target in enumerate([0, 0, 1, 1]):
            p = shift + 0.1 * (i + 1)
            key = {"fold": fold, "seed": 0, "draw": 0, "patient": f"{fold}{i}"}
            rows.append({**key, "target": target, "prob": [1 - p, p]})
    mean, low, high, n = roc.mean_curve(pd.DataFrame(rows), "patient")
    assert n == 2
    np.testing.assert_array_equal(mean, 1)
    np.testing.assert_array_equal(low, high)


def test_a_fold_with_one_class_gives_no_curve() -> None:
    rows = pd.DataFrame(
        {"fold": "0", "seed": 0, "draw": 0, "patient": ["a", "b"], "target": [1, 1]}
    )
    rows["prob"] = [[0.5, 0.5], [0.2, 0.8]]
    assert roc.mean_curve(rows, "patient") is None


# -- embeddings ----------------------------------------------------------------------------------


def test_embeddings_show_test_scans_of_one_fold_only(demo: Made) -> None:
    results = demo.read()
    with style.look() as look:
        _, numbers = embeddings.draw(results, "phantom", look)
    assert set(numbers.fold) == {"0"}
    run = next(run for run in results.runs("phantom") if run["fold"] == "0" and run["embeddings"])
    tested = set(results.predictions("phantom", {run["arms"][0]}, "all").query("fold == '0'").scan)
    assert set(numbers.scan) == tested


@pytest.mark.parametrize("shape", [(8, 3), (70, 60), (9, 1)])
def test_tsne_of_any_shape_and_the_same_each_time(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    one = embeddings.tsne(values)
    assert one.shape == (shape[0], 2)
    np.testing.assert_array_equal(one, embeddings.tsne(values))


def test_collapsed_embeddings_are_drawn_too() -> None:
    assert np.isfinite(
        embeddings.tsne(embeddings._standardised(np.ones((10, 4), np.float32)))
    ).all()


def test_umap_that_is_not_installed_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match="umap-learn"):
        embeddings.umap(np.zeros((10, 3)))


# -- names ---------------------------------------------------------------------------------------


def test_names_say_what_differs_and_never_collide() -> None:
    plan = make_plan(
        **{key: value for key, value in MANY.items() if key not in ("classes", "n_patients")}
    )
    made = names.Names(plan)
    shown = {made.arm(arm) for arm in made.arms}
    assert len(shown) == len(made.arms)
    assert "SimCLR · linear probe" in shown
    assert f"SimCLR, epochs{names.NBSP}50, size{names.NBSP}64 · fine-tuned" in shown
    assert "random, frozen (test_vit) · linear probe" in shown
    assert not any("size48" in name for name in shown)


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [(0.031, True, "+0.03"), (-0.031, True, "\N{MINUS SIGN}0.03"), (-0.001, True, "0.00"), (0.5, False, "0.50"),
     (float("nan"), True, "\N{EN DASH}"), (None, False, "\N{EN DASH}")],
)  # fmt: skip
def test_numbers_as_a_reader_expects_them(value: float | None, sign: bool, text: str) -> None:
    assert names.number(value, sign=sign) == text


def test_budgets_in_order_of_what_they_hold() -> None:
    assert sorted(["all", "50%", "12", "100", "5%"], key=names.budget_order) == [
        "12",
        "100",
        "5%",
        "50%",
        "all",
    ]
    assert names.with_labels("all", 98.4) == "all labelled patients (98)"
    assert names.with_labels("12", 12) == "12 labelled patients"
