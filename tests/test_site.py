"""The file partitions.yaml, and that nothing about a cluster stands elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fewscans.cluster.site import VARIABLE, Site, current_site, parse_site, read_site
from fewscans.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def test_mistakes_are_told_all_at_once(tmp_path):
    path = tmp_path / "partitions.yaml"
    path.write_text("acount: me\npack: 0\nclasses: {gpus: {partition: x}}\n")
    with pytest.raises(UserError) as caught:
        read_site(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: 3 problems")
    assert "Did you mean 'account'?" in text
    assert "pack" in text
    assert "classes" in text


@pytest.mark.parametrize("text", ["a: [", "- a\n- b\n"])
def test_what_is_no_mapping_is_refused_in_words(text):
    with pytest.raises(UserError, match=r"file\.yaml: "):
        parse_site(text, "file.yaml")


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_site(tmp_path / "nowhere.yaml")


def test_an_empty_file_says_nothing():
    assert parse_site("# nothing yet\n", "file") == Site()


def test_limits_are_those_of_the_partition_of_the_class():
    site = parse_site(
        "partitions: {a: {max_runtime: 5, default: true}, b: {max_runtime: 9}}\nclasses: {gpu: {partition: b}}",
        "file",
    )
    found = [site.partition(kind) for kind in ("light", "gpu")]
    assert [one.max_runtime for one in found if one] == [5, 9]
    assert Site().partition("gpu") is None


def test_the_site_of_a_run_is_named_by_a_variable(tmp_path, monkeypatch):
    path = tmp_path / "partitions.yaml"
    path.write_text("account: me\n")
    current_site.cache_clear()
    monkeypatch.setenv(VARIABLE, str(path))
    site = current_site()
    current_site.cache_clear()
    monkeypatch.delenv(VARIABLE)
    assert site is not None
    assert site.account == "me"
    assert current_site() is None
    current_site.cache_clear()


WORDS = re.compile(
    r"slurm_(account|partition|extra|cluster)|--(account|partition|qos|reservation|constraint)\b|\b(gres|gpu_model|qos)\b"
)


def outside_profiles() -> list[Path]:
    """What users of any machine share: workflow, configs, scripts."""
    found = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk"), *(ROOT / "scripts").glob("*.py")]
    return [*found, *(ROOT / "config").rglob("*.yaml")]


@pytest.mark.parametrize("path", outside_profiles(), ids=lambda path: path.name)
def test_no_word_of_a_cluster_outside_profiles(path):
    assert not [match[0] for match in WORDS.finditer(path.read_text())]
