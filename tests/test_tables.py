"""The table as Markdown, LaTeX and lines of a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from aggregate_factory import Study, run_aggregate

from fewscans.tables import latex_table, markdown_table, terminal_table
from scripts import show


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = []
    for arm, budget, verdict, flags, best in [
        ("scratch.s_1.finetune", "10", None, None, False), ("scratch.s_1.finetune", "30%", None, None, False),
        ("simclr-with-a-rather-long-name.s_1.linear", "10", "gain", "few-groups transductive", True),
        ("simclr-with-a-rather-long-name.s_1.linear", "30%", "cannot tell", "few-groups", False),
    ]:  # fmt: skip
        encoder, recipe, protocol = arm.split(".")
        rows.append({
            "dataset": "my_set", "arm": arm, "encoder": encoder, "recipe": recipe, "protocol": protocol,
            "budget": budget, "unit": "patient", "auroc": 0.8125, "auroc_low": 0.74, "auroc_high": 0.87,
            "verdict": verdict, "flags": flags, "best_by_validation": best,
        })  # fmt: skip
    return pd.DataFrame(rows)


def test_markdown(frame: pd.DataFrame) -> None:
    text = markdown_table(frame, "auroc")
    assert (
        r"| simclr-with-a-rather-long-name.s\_1.linear | **0.81 (0.74-0.87)** +<sup>1</sup><sup>2</sup> |"
        in text
    )
    assert "| 0.81 (0.74-0.87) ?<sup>1</sup> |" in text
    assert "1. few-groups: " in text
    assert r"### my\_set, auroc by patient" in text


def test_latex(frame: pd.DataFrame) -> None:
    text = latex_table(frame, "auroc")
    assert r"arm & 10 & 30\% \\" in text
    assert r"\textbf{0.81 (0.74--0.87)} $+$$^{1,2}$ & 0.81 (0.74--0.87) ?$^{1}$ \\" in text
    assert r"my\_set" in text
    assert "_1" not in text.replace(r"\_1", "")
    assert text.count("{") == text.count("}")


def test_terminal(frame: pd.DataFrame) -> None:
    wide = pd.concat([frame.assign(budget=str(i)) for i in range(9)])
    for table in (frame, wide):
        lines = terminal_table(table, "auroc").splitlines()
        assert max(map(len, lines)) <= 100
    text = terminal_table(frame, "auroc")
    assert "0.81 (0.74-0.87) +*" in text
    assert "0.81 (0.74-0.87) ?" in text
    assert "nan" not in text.lower()


def test_show(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert show.main(["--table", "results/ablation_table.csv"]) == 2
    assert "no such file" in capsys.readouterr().err
    Study(here).write()
    assert run_aggregate(compare={"metric": "f1"}) == 0
    plan = json.loads(Path("work/plan.json").read_text())
    plan["config"]["compare"]["metric"] = "f1"
    Path("work/plan.json").write_text(json.dumps(plan))
    assert show.main(["--table", "results/ablation_table.csv", "--plan", "work/plan.json"]) == 0
    said = capsys.readouterr().out
    assert "mine: f1 by patient" in said
    assert "results/ablation_table.csv" in said
