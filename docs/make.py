"""Write the generated parts of the documentation: tables of columns, and the index of the notes.

    python docs/make.py             docs/contracts.md, docs/notes/index.md
    python docs/make.py --check     writes nothing; exit 1 where they lag behind

The settings reference is written by ``python -m fewscans.config.reference`` (``make config``).
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent
MARK = re.compile(r"(<!-- columns: (\w+) -->\n)(\n\|.*?\n(?=\n|\Z))?", re.DOTALL)


def contracts(text: str) -> str:
    """`text` of contracts.md with the table of columns behind each mark."""
    from fewscans.contracts import COLUMNS

    marked = [name for _, name in re.findall(r"(<!-- columns: (\w+) -->)", text)]
    if sorted(marked) != sorted(COLUMNS):
        differing = ", ".join(sorted(set(marked) ^ set(COLUMNS)))
        raise SystemExit(
            f"docs/contracts.md: a mark `<!-- columns: NAME -->` for each table: {differing}"
        )

    def table(match: re.Match[str]) -> str:
        lines = ["| column | type |", "| --- | --- |"]
        for name, kind in COLUMNS[match[2]].items():
            word = (
                str(kind).replace("<item: ", " of ").replace("<element: ", " of ").replace(">", "")
            )
            lines.append(f"| `{name}` | {word} |")
        return match[1] + "\n" + "\n".join(lines) + "\n"

    return MARK.sub(table, text)


def notes() -> str:
    """Index of ``notes/NNNN-name.md`` by their first headings."""
    lines = ["# Notes", "", "What could have been decided otherwise: context, choice, cost.", ""]
    for path in sorted((DOCS / "notes").glob("[0-9]*.md")):
        heading = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"- [{heading}]({path.name})")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the generated parts, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with a diff")
    arguments = parser.parse_args(argv)
    written = DOCS / "contracts.md"
    made = {
        written: contracts(written.read_text(encoding="utf-8")),
        DOCS / "notes/index.md": notes(),
    }
    behind = 0
    for path, text in made.items():
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if old == text:
            continue
        behind = 1
        if arguments.check:
            diff = difflib.unified_diff(
                old.splitlines(), text.splitlines(), path.name, "generated", lineterm=""
            )
            print("\n".join(diff), file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote docs/{path.relative_to(DOCS)}")
    if behind and arguments.check:
        print("docs/ lags behind. Run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
