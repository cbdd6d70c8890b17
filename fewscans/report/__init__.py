"""One page with everything: the answer in words, table, figures, what the audit found, how it was done.

The page stands alone: images inside, no script, no network. All text from outside is escaped.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewscans.files import write_text

if TYPE_CHECKING:
    from fewscans.config import ReportSettings
    from fewscans.figures.inputs import Results


def write_report(
    results: Results,
    settings: ReportSettings,
    figures: str | os.PathLike[str],
    page: str | os.PathLike[str],
) -> None:
    """Draw every figure below the folder `figures` and write `page`, whole or not at all."""
    from fewscans.figures import draw_all

    drawn = {name: draw_all(results, name, figures, settings) for name in results.datasets}
    write_text(page, render(results, settings, drawn))


def render(results: Results, settings: ReportSettings, drawn: dict[str, dict[str, Path]]) -> str:
    """HTML of the page; `drawn` is data set -> figure name -> PNG."""
    from fewscans.report import answer, audit, methods, tables, words
    from fewscans.report.template import environment

    blocks = [
        {
            "name": name,
            "cohort": methods.cohort(results, name),
            "answer": answer.answer(results, name),
            "tables": tables.main_tables(results, name),
            "metrics": tables.all_metrics(results, name),
            "flags": words.explain_flags(tables.flags_of(results, name)),
            "figures": [
                _figure(results, name, key, png, settings.embedding)
                for key, png in drawn[name].items()
            ],
            "audit": audit.audit(results, name),
        }
        for name in results.datasets
    ]
    page = environment().get_template("page")
    return page.render(
        title=settings.title,
        blocks=blocks,
        question=answer.question(results),
        verdicts=words.verdicts(results),
        methods=methods.methods(results),
    )


def _figure(results: Results, dataset: str, name: str, png: Path, picture: str) -> dict[str, Any]:
    from fewscans.report import words

    title, caption = words.caption(name, results, picture)
    coded = base64.b64encode(png.read_bytes()).decode("ascii")
    return {
        "id": f"{dataset}-{name}",
        "title": title,
        "caption": caption,
        "src": f"data:image/png;base64,{coded}",
        "width": _width(png),
    }


def _width(png: Path) -> int:
    """Width in CSS pixels, at 96 to the inch."""
    from fewscans.figures.style import DPI

    # IHDR: eight bytes of signature, length and name, then the width (PNG, section 11.2.1).
    return round(int.from_bytes(png.read_bytes()[16:20], "big") / DPI * 96 * 1.3)
