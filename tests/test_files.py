"""Whole or not at all: atomic writes, the cache, digests; errors; contracts between stages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewscans import contracts, files
from fewscans.errors import Problems, UserError, did_you_mean

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with files.atomic(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(target.parent) == ["file.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail() -> None:
        with files.atomic(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_is_replaced_with_all_that_was_in_it(tmp_path):
    target = tmp_path / "store"
    for content in ("one", "two"):
        with files.atomic(target, folder=True) as temporary:
            (temporary / content).write_text(content)
    assert names(target) == ["two"]
    assert names(tmp_path) == ["store"]


def test_an_error_in_a_folder_leaves_the_old_one(tmp_path):
    target = tmp_path / "store"
    with files.atomic(target, folder=True) as temporary:
        (temporary / "a").write_text("old")

    def fail() -> None:
        with files.atomic(target, folder=True) as temporary:
            (temporary / "a").write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["store"]


KILLED = """
    import sys, time
    from pathlib import Path
    from fewscans import files

    target, folder = Path(sys.argv[1]), sys.argv[2] == "folder"
    with files.atomic(target, folder=folder) as temporary:
        place = temporary / "part" if folder else temporary
        with open(place, "w") as handle:
            handle.write("half")
            handle.flush()
            print("writing", flush=True)
            time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("before", [None, "old"])
def test_killed_while_writing_nothing_half_stands_under_the_name(tmp_path, kind, before):
    target = tmp_path / "out"
    if before and kind == "folder":
        target.mkdir()
        (target / "part").write_text(before)
    elif before:
        target.write_text(before)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(target), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    if before is None:
        assert not target.exists()
    else:
        assert (target / "part" if kind == "folder" else target).read_text() == before
    # The same command again succeeds, beside what the dead one left.
    with files.atomic(target, folder=kind == "folder") as temporary:
        (temporary / "part" if kind == "folder" else temporary).write_text("new")
    assert (target / "part" if kind == "folder" else target).read_text() == "new"


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    target = tmp_path / "file"
    with files.atomic(target) as first, files.atomic(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the outer block ends last
    assert names(tmp_path) == ["file"]


@given(value=st.dictionaries(st.text(), JSON))
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    backwards = dict(reversed(value.items()))
    assert files.digest(value) == files.digest(backwards)
    assert json.loads(files.canonical_json(value)) == value


def test_digests_stay_as_they_are():
    # A changed digest would make everything again. By hand:
    # printf '{"a":"\\u00e4","b":[1,2.5,null]}' | sha256sum | cut -c1-16
    assert files.digest({"b": [1, 2.5, None], "a": "ä"}) == "4b12564ba8344d19"
    assert files.digest([1, 2]) != files.digest([2, 1])
    assert files.digest(1) != files.digest("1")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.digest(float("nan"))


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-4, example for "abc"
    assert files.sha256_file(path) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_json_is_readable_and_ends_with_a_line(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n "a": [\n  1\n ],\n "b": 1\n}\n'


def make_entry(cache, tmp_path, key="abcdef", text="weights") -> None:
    source = tmp_path / "source"
    source.write_text(text)
    cache.put(key, {"encoder": source, "history": source})
    source.unlink()


def test_cache_gives_back_what_was_put(tmp_path):
    cache = files.Cache(tmp_path / "cache")
    assert not cache.has("abcdef")
    assert not cache.get("abcdef", {"encoder": tmp_path / "out"})
    make_entry(cache, tmp_path)
    assert cache.has("abcdef")
    assert cache.get("abcdef", {"encoder": tmp_path / "deep" / "out"})
    assert (tmp_path / "deep" / "out").read_text() == "weights"


def test_cache_gives_all_or_nothing(tmp_path):
    cache = files.Cache(tmp_path / "cache")
    make_entry(cache, tmp_path)
    assert not cache.get("abcdef", {"encoder": tmp_path / "a", "views": tmp_path / "b"})
    assert not (tmp_path / "a").exists()


def test_the_first_copy_stays(tmp_path):
    cache = files.Cache(tmp_path / "cache")
    make_entry(cache, tmp_path, text="first")
    make_entry(cache, tmp_path, text="second")
    assert (cache.entry("abcdef") / "encoder").read_text() == "first"


def test_replacing_a_linked_output_leaves_the_cache_as_it_was(tmp_path):
    cache = files.Cache(tmp_path / "cache")
    make_entry(cache, tmp_path)
    cache.get("abcdef", {"encoder": tmp_path / "out"})
    files.write_text(tmp_path / "out", "changed")
    assert (cache.entry("abcdef") / "encoder").read_text() == "weights"


def test_what_comes_from_the_cache_is_newer_than_what_it_was_made_from(tmp_path):
    cache = files.Cache(tmp_path / "cache")
    make_entry(cache, tmp_path)
    for name in ("encoder", "history"):
        os.utime(cache.entry("abcdef") / name, (1_000_000, 1_000_000))
    cache.get("abcdef", {"encoder": tmp_path / "out"})
    assert (tmp_path / "out").stat().st_mtime > 1_000_000


def test_problems_are_raised_together_and_each_once():
    problems = Problems("labels.csv")
    problems.raise_if_any()
    problems.add("row 3", "no path.")
    problems.add("row 3", "no path.")
    problems.add("row 12", "path twice.")
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert str(caught.value) == "labels.csv: 2 problems\n  row 3   no path.\n  row 12  path twice."


def test_did_you_mean_names_the_nearest_or_only_what_there_is():
    assert (
        did_you_mean("simsian", ["simclr", "simsiam"])
        == " Did you mean 'simsiam'? Known: simclr, simsiam"
    )
    assert did_you_mean("xyz", ["simclr"]) == " Known: simclr"
    assert did_you_mean("xyz", []) == ""


def budgets_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "fold": ["0"],
            "budget": ["10"],
            "draw": [0],
            "scan": ["ab"],
            "inner": [-1],
            "extra": [0.5],
        }
    )


def test_a_table_has_its_columns_in_order_and_then_the_others(tmp_path):
    path = tmp_path / "budgets.parquet"
    frame = budgets_frame()[["extra", "scan", "inner", "draw", "budget", "fold"]]
    contracts.write_table(path, "budgets", frame, seed=3, names=["a"])
    read = contracts.read_table(path, "budgets")
    assert list(read.columns) == [*contracts.COLUMNS["budgets"], "extra"]
    assert contracts.read_metadata(path) == {"seed": 3, "names": ["a"]}


def test_a_missing_column_is_named_and_nothing_is_written(tmp_path):
    path = tmp_path / "budgets.parquet"
    with pytest.raises(ValueError, match="budgets: columns missing: draw, inner"):
        contracts.write_table(path, "budgets", budgets_frame().drop(columns=["draw", "inner"]))
    assert not path.exists()


def test_a_column_of_another_type_is_refused(tmp_path):
    frame = budgets_frame().assign(draw=["first"])
    with pytest.raises((ValueError, TypeError)):
        contracts.write_table(tmp_path / "budgets.parquet", "budgets", frame)
    assert names(tmp_path) == []


def test_a_table_of_another_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "budgets.parquet"
    contracts.write_table(path, "budgets", budgets_frame())
    with pytest.raises(ValueError, match="not a table of 'folds': columns missing: group, role"):
        contracts.read_table(path, "folds")


@pytest.mark.parametrize("name", sorted(contracts.COLUMNS))
def test_an_empty_table_keeps_its_types(tmp_path, name):
    path = tmp_path / "empty.parquet"
    contracts.write_table(path, name, pd.DataFrame(columns=list(contracts.COLUMNS[name])))
    read = contracts.read_table(path, name)
    assert list(read.columns) == list(contracts.COLUMNS[name])
    assert len(read) == 0
    assert contracts.pq.read_schema(path).types == list(contracts.COLUMNS[name].values())
