"""Tables of values: what becomes of their columns, that nothing is learnt from test scans, what is said of faults."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from test_known import labels

from fewscans.config import load
from fewscans.config.values import ValueTable, with_files
from fewscans.convert.values import MOST_WORDS, check_tables, kind_of, read_values
from fewscans.errors import Problems, UserError
from fewscans.known import read_known
from fewscans.plan import Paths, expand
from fewscans.plan.written import as_json
from fewscans.rawdata import check_config, resolve_values
from fewscans.values import read_all


def table(path, frame: dict, **settings) -> ValueTable:
    made = pd.DataFrame(frame)
    if path.suffix == ".parquet":
        made.to_parquet(path)
    else:
        made.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return ValueTable(table=str(path), **settings)


def scans(patients="aabcd", dataset="cohort") -> pd.DataFrame:
    paths = [f"{i}.png" for i in range(len(patients))]
    return pd.DataFrame({"dataset": dataset, "path": paths, "patient": list(patients)})


def read(given: ValueTable, of: pd.DataFrame | None = None):
    (made,) = read_all(scans() if of is None else of, {"cohort": {"labs": given}}, "cohort")
    return made


FRAME = {
    "patient": ["a", "b", "c", "e"],
    "crp": [1.0, 3.0, None, 500.0],
    "sex": ["f", "m", "m", "x"],
    "snp": [0, 2, 1, 1],
}


@pytest.mark.parametrize("name", ["labs.csv", "labs.tsv", "labs.parquet"])
def test_columns_become_numbers_by_training_rows_alone(tmp_path, name):
    made = read(table(tmp_path / name, FRAME))
    # e has no training scan: neither its 500 nor its word is there; d has no row.
    assert made.columns == ("crp", "crp missing", "sex=f", "sex=m", "snp")
    assert made.present.tolist() == [True, True, True, True, False]
    root = np.sqrt(1.5)
    expected = [[-1, 0, 1, 0, -root], [-1, 0, 1, 0, -root], [1, 0, 0, 1, root], [0, 1, 0, 1, 0], [0] * 5]  # fmt: skip
    np.testing.assert_allclose(made.x, expected, atol=1e-6)
    assert made.x.dtype == np.float32


def test_a_patient_with_many_scans_weighs_no_more_than_others(tmp_path):
    given = table(tmp_path / "labs.csv", FRAME)
    one, many = read(given), read(given, scans("aaaaaaabcd"))
    np.testing.assert_array_equal(one.x[[0, 2, 3]], many.x[[0, 7, 8]])


@pytest.mark.parametrize("change", [("crp", None), ("sex", "f"), ("snp", 5)])
def test_the_digest_follows_training_values_alone(tmp_path, change):
    column, new = change
    before = read(table(tmp_path / "labs.csv", FRAME)).identity()
    for row, same in ((3, True), (1, False)):
        frame = {**FRAME, column: [new if i == row else v for i, v in enumerate(FRAME[column])]}
        assert (read(table(tmp_path / "labs.csv", frame)).identity() == before) is same
    further = {**FRAME, "patient": [*"abc", "d"]}  # d has values now
    assert read(table(tmp_path / "labs.csv", further)).identity() != before


def test_the_order_of_rows_does_not_matter(tmp_path):
    first = read(table(tmp_path / "labs.csv", FRAME)).identity()
    turned = {name: cells[::-1] for name, cells in FRAME.items()}
    assert read(table(tmp_path / "labs.csv", turned)).identity() == first


def test_a_row_per_scan(tmp_path):
    frame = {"file": ["./1.png", "3.png", "", "../x"], "crp": [1, 2, 3, 4], "note": ["x"] * 4}
    made = read(table(tmp_path / "labs.csv", frame, by="path", key="file", columns=["crp"]))
    assert made.present.tolist() == [False, True, False, True, False]
    assert made.x[:, 0].tolist() == [0, -1, 0, 1, 0]


def test_columns_that_say_nothing_are_left_out_and_named(tmp_path, caplog):
    frame = {**FRAME, "same": [7, 7, 7, 8], "empty": [None, "NA", "", 3], "word": ["w", "w", "", "v"]}  # fmt: skip
    with caplog.at_level(logging.WARNING, "fewscans"):
        made = read(table(tmp_path / "labs.csv", frame))
    assert made.columns == ("crp", "crp missing", "sex=f", "sex=m", "snp", "word missing")
    assert "2 columns say the same of all training scans and are left out: same, empty" in caplog.text  # fmt: skip


def test_a_pool_joins_by_the_name_of_the_table(tmp_path):
    both = pd.concat([scans("ab"), scans("ac", "pool"), scans("z", "other")], ignore_index=True)
    mine = table(tmp_path / "mine.csv", {"patient": ["a", "b"], "crp": [1, 2], "age": [50, 60]})
    theirs = table(tmp_path / "theirs.csv", {"patient": ["a", "x"], "crp": [3, 9], "bmi": [20, 30]})
    tables = {"cohort": {"labs": mine}, "pool": {"labs": theirs, "more": theirs}}
    (made,) = read_all(both, tables, "cohort")
    assert made.columns == ("crp", "age", "age missing")
    assert made.present.tolist() == [True, True, True, False, False]
    root = np.sqrt(1.5)
    np.testing.assert_allclose(made.x[:3], [[-root, -1, 0], [0, 1, 0], [root, 0, 1]], atol=1e-6)


def test_known_reads_values_where_they_are_wanted(tmp_path):
    names = [("1.png", "a", "ill"), ("2.png", "b", "ill"), ("3.png", "c", "ill")]
    path = labels(tmp_path / "labels.parquet", names)
    tables = {"cohort": {"labs": table(tmp_path / "labs.csv", FRAME)}}
    order = ["cohort2", "cohort0", "cohort1"]
    given = (order, set(order), {"cohort": path}, "cohort", tables)
    read = read_known(("patient", "values"), *given)
    assert read.values[0].x[:, -1].tolist() == pytest.approx([0, -np.sqrt(1.5), np.sqrt(1.5)])
    assert read.target.tolist() == [-1, -1, -1]
    assert set(read.identity()) == {"patient", "place", "target", "classes", "values"}
    without = read_known(("patient",), *given)
    assert without.values == ()
    assert "values" not in without.identity()


# -- faults ----------------------------------------------------------------------------------------


def said(given: ValueTable) -> str:
    with pytest.raises(UserError) as error:
        read(given)
    return str(error.value)


def test_what_is_wrong_is_said_all_at_once(tmp_path):
    odd = {"patient": ["a", "b", "c", "a"], "crp": ["1", "2", "<0.5", "1"]}
    tables = {"cohort": {
        "gone": ValueTable(table=str(tmp_path / "gone.csv")),
        "odd": table(tmp_path / "odd.csv", odd),
        "key": table(tmp_path / "key.csv", FRAME, key="patent"),
        "column": table(tmp_path / "column.csv", FRAME, columns=["crp", "sexx"]),
        "twice": table(tmp_path / "twice.csv", {**FRAME, "patient": [*"aabc"]}),
        "nobody": table(tmp_path / "nobody.csv", {"patient": ["v", "w"], "crp": [1, 2]}),
        "silent": table(tmp_path / "silent.csv", {"patient": ["a", "b"], "crp": [1, 1]}),
    }}  # fmt: skip
    with pytest.raises(UserError) as error:
        read_all(scans(), tables, "cohort")
    text = str(error.value)
    for message in (
        "gone.csv: no such table",
        "'crp': most are numbers, 1 are not (such as '<0.5')",
        "has no column 'patent'. Did you mean 'patient'?",
        "has no column 'sexx'. Did you mean 'sex'?",
        "1 patient with two rows that differ; give one each. Where each scan has its own, write `by: path`.",
        "no row is of any of the 5 training scans",
        "every column says the same of all training scans",
    ):
        assert message in text


def test_names_that_are_no_tables_are_told(tmp_path):
    tables = {"cohort": {"labs": table(tmp_path / "labs.csv", FRAME)}}
    with pytest.raises(UserError, match=r"no such table of data set cohort.*Did you mean 'labs'"):
        read_all(scans(), tables, "cohort", ["lab"])
    with pytest.raises(UserError, match="data set cohort has none: give --values NAME=FILE"):
        read_all(scans(), {}, "cohort")


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2.5", "1e3", ""], "numbers"),
        (["", ""], "numbers"),
        (["yes", "no", ""], "words"),
        (["1", "2", "3+"], "neither"),
        (["1,5", "2,5"] * 3, "words"),
        ([f"{i},5" for i in range(MOST_WORDS + 1)], "neither"),
        (["inf", "x", "y"], "words"),
    ],
)
def test_kinds_of_columns(cells, kind):
    assert kind_of(cells)[0] == kind


def test_the_plan_says_what_shows_before_any_job(tmp_path):
    rows = [{"path": "1.png", "patient": "a"}, {"path": "2.png", "patient": ""}]
    days = [f"2020-01-{i:02d}" for i in range(1, 26)]
    other = [f"x{i}" for i in range(25)]
    tables = {
        "labs": table(tmp_path / "labs.csv", FRAME),
        "dates": table(tmp_path / "dates.csv", {"patient": other, "day": days}),
        "label": table(tmp_path / "label.csv", {**FRAME, "label": [1, 2, 1, 2]}, columns=["label"]),
    }
    problems = Problems("data sets")
    check_tables(tables, rows, "label", problems, "datasets.mine")
    places = dict(problems.lines)
    wrong = ("dates.key", "dates.columns", "label.columns")
    assert set(places) == {f"datasets.mine.values.{key}" for key in wrong}
    assert "(here such as 'x0', there 'a')" in places["datasets.mine.values.dates.key"]
    assert "25 different words" in places["datasets.mine.values.dates.columns"]
    assert "is the label: pretraining would see it" in places["datasets.mine.values.label.columns"]
    nobody = Problems("data sets")
    check_tables({"labs": tables["labs"]}, [{"path": "1.png", "patient": ""}], "label", nobody, "d")
    assert "names no patients. Give a row per scan" in dict(nobody.lines)["d.values.labs.by"]


def test_columns_of_the_label_table_are_left_out_where_none_are_named(tmp_path):
    given = table(tmp_path / "labs.csv", FRAME, exclude=["sex", "label"])
    assert read_values(given, Problems("x"), "x")[0] == ["crp", "snp"]


def test_a_config_says_where_tables_are_and_what_is_no_value_in_them(tmp_path):
    values = {"labs": {"table": "labs.csv", "exclude": ["note"]}, "far": {"table": "/far/x.csv"}}
    columns = {"path": "file", "patient": None, "label": "diagnosis"}
    datasets = {
        "own": {"root": "scans", "table": "t.csv", "columns": columns, "values": values},
        "npz": {"npz": "sub/small.npz", "values": {"labs": {"table": "labs.csv", "by": "path"}}},
        "made": {"phantom": {}, "values": {"labs": {"table": "labs.csv"}, "no": {"table": "x.csv"}}},
    }  # fmt: skip
    config = load({"data_root": "/data", "work": "w", "datasets": datasets})
    own = resolve_values(config, "own")
    assert {name: one.table for name, one in own.items()} == {
        "labs": "/data/scans/labs.csv", "far": "/far/x.csv",
    }  # fmt: skip
    assert set(own["labs"].exclude) == {
        "note", "file", "diagnosis", "split", "site", "mask",
    }  # fmt: skip
    assert resolve_values(config, "npz")["labs"].table == "/data/sub/labs.csv"
    assert resolve_values(config, "made")["labs"].table == "w/made/raw/labs.csv"
    with pytest.raises(UserError) as error:
        check_config(expand(config))
    told = dict(error.value.problems)
    assert (
        told["datasets.made.values.no.table"] == "a generated cohort has labs.csv alone. Name that."
    )
    assert "/data" not in str(as_json(expand(config), Paths("w", "r"), {}))


def test_files_from_flags_replace_and_add(tmp_path):
    known = {"cohort": {"labs": ValueTable(table="old.csv", by="path")}}
    made = with_files(known, "cohort", {"labs": tmp_path / "new.csv", "pool/labs": tmp_path / "p.csv"})  # fmt: skip
    assert made["cohort"]["labs"] == ValueTable(table=str(tmp_path / "new.csv"), by="path")
    assert made["pool"]["labs"] == ValueTable(table=str(tmp_path / "p.csv"))
    assert known["cohort"]["labs"].table == "old.csv"
