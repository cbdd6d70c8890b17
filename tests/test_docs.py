"""Documentation: generated parts in step, links that lead somewhere, commands that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))


def test_generated_parts_are_in_step():
    command = [sys.executable, "docs/make.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pages_build_and_their_links_and_anchors_lead_somewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Files between stages" in (tmp_path / "contracts.html").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page):
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text)
    missing = [
        target
        for target in targets
        if "://" not in target and not ((ROOT / page).parent / target).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist(page):
    text = (ROOT / page).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word for line in re.findall(r"(?<!\w)make ([a-z -]+)", code(text)) for word in line.split()
    }
    assert not named - targets
    for path in re.findall(
        r"(?<![\w/])((?:config|scripts|profiles|envs|docs)/[\w./-]+\.\w+)", code(text)
    ):
        # Files of a study (my.yaml) are made by the user; these folders are ours. VERB.py stands for any.
        if not re.search("VERB|STAGE|NNNN|NAME", path):
            assert (ROOT / path).exists(), path


def code(text: str) -> str:
    """Code blocks (without their remarks) and code in lines."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    return "\n".join([*lines, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)])


def test_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
