"""The page: it says what the tables say, stands alone, survives hostile names, and opens in a browser."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fewscans.config import RecipeSettings
from fewscans.figures import NAMES, paths_of
from fewscans.figures.inputs import Results
from fewscans.report import answer, tables, template, words
from fewscans.report.methods import methods
from scripts import report as script
from tests import browser
from tests.results_factory import make_results

ROOT = Path(__file__).resolve().parents[1]
NASTY = "<script>alert('1')</script>"
FINDING = """"><img src=x onerror="document.title='broken into'"> & 'quotes' {{ 7 * 7 }}"""
TITLE = '</title><script>document.title = "broken into"</script>'
# The program alone, and whether it has dragged in what a laptop need not have.
PROGRAM = (
    "import sys; from scripts.report import main; code = main(sys.argv[1:]); "
    "assert 'torch' not in sys.modules, 'torch was imported'; raise SystemExit(code)"
)


class Parsed(HTMLParser):
    """Tags with attributes, and the text outside of tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the script in a process of its own, from two data sets with hostile names in them."""
    root = tmp_path_factory.mktemp("run")
    made = make_results(
        root, datasets=("phantom", "second"), classes=("benign", NASTY), finding=FINDING, n_patients=30,
        encoders={"simclr": {"method": "simclr", "backbone": "test_resnet"}}, budgets=["12", "all"],
        score={"units": ["patient", "scan"]},
    )  # fmt: skip
    params = json.dumps({"report": {"title": TITLE}})
    command = [sys.executable, "-c", PROGRAM, "--params", params, *made.arguments(), "--figures", "results/figures",
               "--out", "results/report.html", "--sidecar", "report.json"]  # fmt: skip
    run = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "subset" not in run.stderr  # fontTools is kept quiet
    return root / "results/report.html"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return make_results(
        tmp_path_factory.mktemp("plain"), n_patients=30, budgets=["12", "all"]
    ).read()


# -- the script ----------------------------------------------------------------------------------


def test_the_script_writes_page_figures_and_sidecar_without_torch(page: Path) -> None:
    for dataset in ("phantom", "second"):
        assert all(path.is_file() for path in paths_of(page.parent / "figures", dataset))
    facts = json.loads((page.parent.parent / "report.json").read_text())
    assert facts["datasets"] == ["phantom", "second"]
    assert facts["params"]["report"]["title"] == TITLE
    assert page.stat().st_size < 3_000_000


def test_missing_files_are_all_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        word
        for flag in ("plan", "scores", "contrasts", "table")
        for word in (f"--{flag}", str(tmp_path / flag))
    ]
    code = script.main(
        [*names, "--figures", str(tmp_path / "f"), "--out", str(tmp_path / "page.html")]
    )
    said = capsys.readouterr().err
    assert code == 2
    assert all(str(tmp_path / flag) in said for flag in ("plan", "scores", "contrasts", "table"))
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


# -- what the page holds -------------------------------------------------------------------------


def test_nothing_from_outside_becomes_markup(page: Path) -> None:
    parsed = Parsed(page.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in parsed.tags]
    assert "script" not in tags
    assert not [
        name for _, attributes in parsed.tags for name in attributes if name.startswith("on")
    ]
    text = " ".join("".join(parsed.text).split())
    for name in (NASTY, FINDING, TITLE):
        assert name in text
    assert tags.count("img") == 2 * len(NAMES)


def test_the_page_needs_nothing_else(page: Path) -> None:
    parsed = Parsed(page.read_text(encoding="utf-8"))
    for tag, attributes in parsed.tags:
        for key in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    css = page.read_text(encoding="utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in css
    assert "@import" not in css
    ids = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    links = {str(a["href"])[1:] for tag, a in parsed.tags if tag == "a"}
    assert links
    assert links <= ids


def test_the_page_says_every_number_of_the_table(page: Path) -> None:
    text = "".join(Parsed(page.read_text(encoding="utf-8")).text)
    table = pd.read_csv(page.parent / "ablation_table.csv")
    for row in table.itertuples():
        assert f"{row.auroc:.3f}" in text
        if isinstance(row.verdict, str):
            assert f"{row.auroc_diff:+.3f}".replace("-", "\N{MINUS SIGN}") in text
    for word in set(table.verdict.dropna()):
        assert word in text
    for title, _ in words.CAPTIONS.values():
        assert text.count(f"{title}.") == 2
    assert "joined into one group" in text
    assert "c" * 16 in text  # digest of the config
    assert words.FLAGS["no-inner-validation"] in text
    assert "Per scan" in text  # the second unit
    assert "2.13.0" in text


def test_backticks_become_code_and_nothing_else_does() -> None:
    assert template.coded("a `b` <i>`<b>`</i> `") == (
        "a <code>b</code> &lt;i&gt;<code>&lt;b&gt;</code>&lt;/i&gt; `"
    )


# -- the answer ----------------------------------------------------------------------------------


def judged(results: Results, verdicts: dict[tuple[str, str], str], flags: str = "") -> Results:
    """`results` with these verdicts for the self-supervised arms (arm, budget); others stay."""
    told = results.contrasts.copy()
    told["flags"] = flags
    for (arm, budget), verdict in verdicts.items():
        told.loc[(told.arm == arm) & (told.budget == budget), "verdict"] = verdict
    return dataclasses.replace(results, contrasts=told)


def asked(results: Results) -> list[tuple[str, str]]:
    c = results.contrasts
    return [(a, b) for a, b in zip(c.arm, c.budget, strict=True) if results.is_pretrained(a)]


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (
            "gain",
            "Pretraining gained over scratch in 8 of 8 comparisons: 4 of 4 with 12 patients, 4 of 4 with all",
        ),
        (
            "cannot tell",
            "These data cannot tell whether pretraining helps against scratch (8 comparisons).",
        ),
        (
            "no gain",
            "No gain over scratch was shown in 8 comparisons. A gain of 0.03 or more is ruled out in 8.",
        ),
        ("worse", "is ruled out in 8. It was worse in 8."),
    ],
)
def test_headline_for_one_verdict_everywhere(results: Results, verdict: str, said: str) -> None:
    found = answer.answer(judged(results, dict.fromkeys(asked(results), verdict)), "phantom")
    assert said in found["headline"]


def test_headline_for_mixed_verdicts_counts_each(results: Results) -> None:
    cells = asked(results)
    verdicts = dict(
        zip(cells, ["no gain", "worse", *["cannot tell"] * (len(cells) - 2)], strict=True)
    )
    headline = answer.answer(judged(results, verdicts), "phantom")["headline"]
    assert "ruled out in 2; 6 cannot be told. It was worse in 1." in headline
    gain = answer.answer(judged(results, verdicts | {cells[0]: "gain"}), "phantom")["headline"]
    assert "gained over scratch in 1 of 8" in gain
    assert gain.endswith("It was worse in 1.")


def test_baselines_are_not_counted_as_pretraining(results: Results) -> None:
    others = [(a, b) for a, b in zip(results.contrasts.arm, results.contrasts.budget, strict=True)
              if not results.is_pretrained(a)]  # fmt: skip
    assert others
    changed = judged(
        results, dict.fromkeys(asked(results), "cannot tell") | dict.fromkeys(others, "gain")
    )
    assert "cannot tell" in answer.answer(changed, "phantom")["headline"]


def test_a_sentence_has_difference_interval_and_what_could_be_shown(results: Results) -> None:
    row: Any = next(results.contrasts.itertuples())
    row = row._replace(
        diff=0.031,
        low=-0.052,
        high=0.104,
        smallest_detectable=0.12,
        verdict="cannot tell",
        flags="",
    )
    said = answer.sentence(results, row)
    minus, space = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
    assert said["numbers"] == (
        f"difference +0.03, 95{space}% interval {minus}0.05 to 0.10; a difference of 0.12 could have been shown"
    )
    assert said["against"].startswith("scratch")
    unknown = answer.sentence(results, row._replace(flags="few-groups training-variance-unknown"))
    assert unknown["numbers"].endswith("too few trainings to judge by")


def test_too_few_trainings_claim_no_power(results: Results) -> None:
    unknown = judged(
        results, dict.fromkeys(asked(results), "cannot tell"), flags="training-variance-unknown"
    )
    found = answer.answer(unknown, "phantom")
    assert "too few trainings" in found["detectable"]
    rows = [
        row
        for group in tables.main_tables(unknown, "phantom")[0]["groups"]
        for row in group["rows"]
    ]
    assert {row["detectable"] for row in rows if row["verdict"]} == {""}
    known = judged(results, dict.fromkeys(asked(results), "cannot tell"))
    assert (
        "would have been shown four times in five" in answer.answer(known, "phantom")["detectable"]
    )


def test_the_best_arm_is_named_from_the_validation_column_alone(results: Results) -> None:
    table = results.table.copy()
    table["best_by_validation"] = (table.arm == "mae.size48.linear") & (table.budget == "12")
    chosen = answer.chosen(dataclasses.replace(results, table=table), "phantom")
    assert chosen == ["With 12 labelled patients: MAE · linear probe"]
    assert answer.chosen(results, "phantom") == []


def test_recipes_are_told_by_what_they_use(results: Results) -> None:
    recipes = {
        "ct": RecipeSettings(windows=["lung", "soft-tissue", "bone"], channels=3),
        "mr": RecipeSettings(ndim=3, spacing_mm=[3, 1, 1], normalise="zscore", foreground=True),
        "plain": RecipeSettings(),
    }
    plan = {
        **results.plan,
        "recipes": {name: one.model_dump(mode="json") for name, one in recipes.items()},
    }
    told = {
        one["name"]: one["settings"]
        for one in methods(dataclasses.replace(results, plan=plan))["recipes"]
    }
    assert "windows lung, soft-tissue, bone" in told["ct"]
    assert "window hu" not in told["ct"]
    assert "spacing mm 3 x 1 x 1" in told["mr"]
    assert "foreground yes" in told["mr"]
    assert "percentiles" not in told["mr"]
    assert told["plain"].endswith("normalise percentile, percentiles 0.5 to 99.5, fit pad")


def test_flags_are_explained_wherever_they_come_from() -> None:
    documented = [line.split("`")[1] for line in (ROOT / "docs/table.md").read_text().split("## Flags")[1].splitlines()
                  if line.startswith("| `")]  # fmt: skip
    assert documented
    assert set(documented) <= set(words.FLAGS)
    shown = words.explain_flags({"something-new", "transductive"})
    assert [(one["letter"], one["flag"]) for one in shown] == [
        ("a", "transductive"),
        ("b", "something-new"),
    ]


# -- snakemake --report --------------------------------------------------------------------------


def test_captions_for_snakemake_say_the_same() -> None:
    write = "[open(f'report/figures/{n}.rst', 'w').write(rst(n)) for n in CAPTIONS]"
    fix = f'python -c "from fewscans.report.words import *; {write}"'
    folder = ROOT / "report/figures"
    assert {path.stem for path in folder.glob("*.rst")} == set(NAMES) == set(words.CAPTIONS)
    for name in NAMES:
        assert (folder / f"{name}.rst").read_text(encoding="utf-8") == words.rst(name), (
            f"run: {fix}"
        )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "report").rglob("*.rst")), ids=lambda path: path.stem
)
def test_captions_are_valid_rst(path: Path) -> None:
    core = pytest.importorskip("docutils.core", reason="docutils comes with snakemake")
    html = core.publish_parts(
        path.read_text(encoding="utf-8"),
        writer="html5",
        settings_overrides={"halt_level": 2, "report_level": 2},
    )["html_body"]
    assert "<p>" in html


# -- in a browser --------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(
    browser.find() is None, reason="chromium is not installed (Debian: chromium)"
)


@needs_browser
def test_the_page_opens_in_a_browser_with_everything_and_without_a_complaint(page: Path) -> None:
    with browser.page() as tab:
        tab.size(1200, 900)
        tab.open(page)
        widths = tab.evaluate("[...document.images].map(i => i.complete ? i.naturalWidth : 0)")
        assert len(widths) == 2 * len(NAMES)
        assert min(widths) > 500
        captions = tab.evaluate(
            "[...document.querySelectorAll('figcaption')].map(e => e.innerText)"
        )
        assert len(captions) == len(widths)
        assert min(len(text) for text in captions) > 80
        rows = tab.evaluate(
            "[...document.querySelectorAll('table.scores')].map(t => t.tBodies.length)"
        )
        assert rows == [
            2,
            2,
            2,
            2,
        ]  # two budgets in a table, per patient and per scan, for two data sets
        seen = tab.evaluate("document.querySelector('table.scores').getBoundingClientRect().height")
        assert seen > 200
        assert tab.evaluate("document.title") == TITLE
        assert tab.evaluate(
            "document.querySelector('main').innerText.includes('joined into one group')"
        )
        # The page itself never scrolls sideways, not on a phone either: wide tables scroll in their own boxes.
        for width in (1200, 390):
            tab.size(width, 844)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.complaints() == []
        assert tab.requests() == [page.resolve().as_uri()]


@needs_browser
def test_the_browser_would_have_complained(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><img src='data:image/png;base64,AAAA'><img src='nowhere.png'>"
        "<script>console.error('told'); throw new Error('thrown')</script>"
    )
    with browser.page() as tab:
        tab.open(bad)
        assert tab.evaluate("[...document.images].map(i => i.naturalWidth)") == [0, 0]
        said = json.dumps(tab.complaints())
        assert "told" in said
        assert "thrown" in said
        assert any(url.endswith("nowhere.png") for url in tab.requests())
