"""A table as others read it: CSV, Parquet, Markdown, LaTeX, and short in a terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from fewscans.files import atomic, write_text

# A sign that survives print, colour blindness and a pipe.
MARKS = {"gain": "+", "worse": "-", "no gain": "=", "cannot tell": "?"}
LEGEND = "+ gain, = no gain, - worse, ? cannot tell, against the baseline"
FLAGS = {
    "class-missing": "a fold lacks a class; ranking metrics leave it out",
    "constant-predictor": "gives every patient the same probabilities in a fold",
    "few-groups": "a fold has few groups of a class",
    "fold-missing": "this budget does not exist in every fold",
    "incomplete": "some draws lack a seed and were left out",
    "no-inner-validation": "too few labels to choose settings; documented defaults",
    "no-patient-ids": "nobody knows whose scans these are",
    "no-validation-score": "no inner predictions, so it cannot be named best",
    "not-converged": "the training loss still fell at the end",
    "patients-with-several-classes": "such a patient counts once in each class",
    "training-variance-unknown": "too few draws and seeds to tell luck from gain",
    "transductive": "pretrained on the test scans too, without labels",
    "unpaired-trainings": "arm and baseline have different draws or seeds",
}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
_MARKDOWN = {c: f"\\{c}" for c in "\\`*_{}[]<>|"} | {"\n": " "}


def write_csv(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write `frame`, whole or not at all; the same values are the same bytes."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def write_parquet(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write `frame`, whole or not at all."""
    with atomic(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")


def read_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The table that `write_csv` wrote. A data set may be called NA: only an empty field is missing."""
    texts = dict.fromkeys(
        ("dataset", "arm", "recipe", "budget", "unit", "verdict", "flags", "baseline_arm"), str
    )
    return pd.read_csv(Path(path), dtype=texts, keep_default_na=False, na_values=[""])


def interval_text(row: pd.Series, metric: str) -> str:
    """``0.81 (0.74-0.87)``; ``-`` where there is no value."""
    value, low, high = row[metric], row[f"{metric}_low"], row[f"{metric}_high"]
    if pd.isna(value):
        return "-"
    return f"{value:.2f}" if pd.isna(low) else f"{value:.2f} ({low:.2f}-{high:.2f})"


def _blocks(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """(data set, unit, rows) in the order of the table."""
    groups = frame.groupby(["dataset", "unit"], sort=False)
    return [(str(dataset), str(unit), part) for (dataset, unit), part in groups]


def _cells(
    part: pd.DataFrame, metric: str
) -> tuple[list[str], dict[str, dict[str, tuple[str, str, list[str]]]]]:
    """Budgets, and arm -> budget -> (text, mark of the verdict, flags)."""
    budgets = list(dict.fromkeys(part["budget"]))
    cells: dict[str, dict[str, tuple[str, str, list[str]]]] = {}
    for _, row in part.iterrows():
        mark = "" if pd.isna(row["verdict"]) else MARKS.get(row["verdict"], "")
        flags = [] if pd.isna(row["flags"]) else str(row["flags"]).split()
        cells.setdefault(row["arm"], {})[row["budget"]] = (interval_text(row, metric), mark, flags)
    return budgets, cells


def _best(part: pd.DataFrame) -> set[tuple[str, str]]:
    chosen = part[part["best_by_validation"].astype(bool)]
    return set(zip(chosen["arm"], chosen["budget"], strict=True))


def _escape(text: str, signs: dict[str, str]) -> str:
    return "".join(signs.get(sign, sign) for sign in text)


def _footnotes(numbers: dict[str, int]) -> list[tuple[int, str]]:
    return [(i, f"{flag}: {FLAGS[flag]}" if flag in FLAGS else flag) for flag, i in numbers.items()]


def markdown_table(frame: pd.DataFrame, metric: str) -> str:
    """Arms x budgets of `metric` for each data set and unit; verdicts as signs, flags as footnotes."""
    lines: list[str] = []
    numbers: dict[str, int] = {}
    for dataset, unit, part in _blocks(frame):
        budgets, cells = _cells(part, metric)
        best = _best(part)

        def cell(arm: str, budget: str, cells: dict = cells, best: set = best) -> str:
            text, mark, flags = cells[arm].get(budget, ("", "", []))
            notes = "".join(
                f"<sup>{numbers.setdefault(flag, len(numbers) + 1)}</sup>" for flag in flags
            )
            shown = f"**{text}**" if (arm, budget) in best else text
            return f"{shown} {_escape(mark, _MARKDOWN)}{notes}".strip()

        lines += [f"### {_escape(dataset, _MARKDOWN)}, {metric} by {unit}", ""]
        lines += ["| arm | " + " | ".join(budgets) + " |", "|---|" + "---|" * len(budgets)]
        lines += [
            f"| {_escape(arm, _MARKDOWN)} | "
            + " | ".join(cell(arm, budget) for budget in budgets)
            + " |"
            for arm in cells
        ]
        lines.append("")
    lines += [f"{LEGEND} (simultaneous over arms). Bold: best by inner validation.", ""]
    lines += [f"{i}. {_escape(text, _MARKDOWN)}" for i, text in _footnotes(numbers)]
    return "\n".join(lines).rstrip() + "\n"


def latex_table(frame: pd.DataFrame, metric: str) -> str:
    """The same as a LaTeX table for each data set and unit (package booktabs)."""
    parts = ["% \\usepackage{booktabs}"]
    for dataset, unit, part in _blocks(frame):
        numbers: dict[str, int] = {}
        budgets, cells = _cells(part, metric)
        best = _best(part)

        def cell(
            arm: str, budget: str, cells: dict = cells, best: set = best, numbers: dict = numbers
        ) -> str:
            text, mark, flags = cells[arm].get(budget, ("", "", []))
            text = text.replace("-", "--") if len(text) > 1 else text
            notes = ",".join(str(numbers.setdefault(flag, len(numbers) + 1)) for flag in flags)
            shown = f"\\textbf{{{text}}}" if (arm, budget) in best else text
            mark = f" ${mark}$" if mark in "+-=" and mark else f" {mark}" if mark else ""
            return f"{shown}{mark}" + (f"$^{{{notes}}}$" if notes else "")

        rows = [
            f"{_escape(arm, _LATEX)} & "
            + " & ".join(cell(arm, budget) for budget in budgets)
            + r" \\"
            for arm in cells
        ]
        notes = "; ".join(f"$^{{{i}}}$ {_escape(text, _LATEX)}" for i, text in _footnotes(numbers))
        caption = (
            f"{_escape(dataset, _LATEX)}: {_escape(metric, _LATEX)} by {unit}, with intervals. "
        )
        caption += (
            "$+$ gain, $=$ no gain, $-$ worse, ? cannot tell; bold: best by inner validation."
        )
        parts.append("\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'l' * len(budgets)}}}", r"\toprule",
            "arm & " + " & ".join(_escape(budget, _LATEX) for budget in budgets) + r" \\", r"\midrule", *rows,
            r"\bottomrule", r"\end{tabular}", *([rf"\\[1ex]\footnotesize {notes}"] if notes else []), r"\end{table}",
        ]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def terminal_table(frame: pd.DataFrame, metric: str, width: int = 100) -> str:
    """Plain text of at most `width` columns: arms x budgets of `metric`, intervals, verdicts as signs."""
    lines: list[str] = []
    lone_recipe = frame["recipe"].nunique() < 2
    for dataset, unit, part in _blocks(frame):
        budgets, cells = _cells(part, metric)
        best = _best(part)
        names = _short_names(part, lone_recipe)
        texts = {
            (arm, budget): f"{text} {mark or ' '}{'*' if (arm, budget) in best else ''}".rstrip()
            for arm, row in cells.items()
            for budget, (text, mark, _) in row.items()
        }
        label = min(max(len(names[arm]) for arm in cells), width // 2)
        column = 2 + max(
            [*(len(text) for text in texts.values()), *(len(budget) for budget in budgets)]
        )
        per_line = max(1, (width - label) // column)
        lines.append(_cut(f"{dataset}: {metric} by {unit}, labelled patients in columns", width))
        for start in range(0, len(budgets), per_line):
            shown = budgets[start : start + per_line]
            rows = [
                ("", shown),
                *((names[arm], [texts.get((arm, b), "") for b in shown]) for arm in cells),
            ]
            lines += [
                (
                    f"{_cut(name, label):<{label}}"
                    + "".join(f"  {cell:<{column - 2}}" for cell in row)
                ).rstrip()
                for name, row in rows
            ]
        lines.append("")
    return "\n".join([*lines, _cut(f"{LEGEND}; * best by inner validation", width)])


def _short_names(part: pd.DataFrame, lone_recipe: bool) -> dict[str, str]:
    """Arm -> ``simclr linear``, with the recipe where there are several."""
    columns = ["encoder", "protocol"] if lone_recipe else ["encoder", "recipe", "protocol"]
    return {row["arm"]: " ".join(row[columns]) for _, row in part.iterrows()}


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
