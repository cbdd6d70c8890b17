"""What a user is told about a config, word for word, and that all of it is told at once."""

from __future__ import annotations

import math

import pytest
import yaml

from fewscans.config import ENCODERS, load, read_config_file
from fewscans.config.load import parse
from fewscans.config.stages import FoldsParams, PretrainParams
from fewscans.errors import UserError
from fewscans.plan import expand

SMALLEST = {"datasets": {"mine": {"root": "scans", "table": "labels.csv"}}}
WITH_VALUES = {
    "datasets": {
        "mine": {**SMALLEST["datasets"]["mine"], "values": {"labs": {"table": "labs.csv"}}}
    }
}
SIMCLR = {"simclr": {"method": "simclr"}}
PRETRAIN_KEYS = f"{', '.join(sorted(ENCODERS['simclr'].model_fields)[:12])}, ..."
METHODS = f"{', '.join(sorted(ENCODERS)[:12])}, ..."
ALL_METHODS = ", ".join(sorted(ENCODERS))
BUDGET = "Write a number of patients (10), a share (50%) or all."


def said(**changes) -> list[tuple[str, str]]:
    with pytest.raises(UserError) as caught:
        load({**SMALLEST, **changes}, "my.yaml")
    assert caught.value.title == "my.yaml"
    return caught.value.problems


def test_smallest_config_has_a_default_for_everything_else():
    config = load(SMALLEST)
    assert config.validation.folds == 5
    assert config.compare.baseline == "scratch"
    assert len(config.recipes) == 1


def test_numbers_in_budgets_become_text():
    assert load({**SMALLEST, "budgets": [10, "50%", "all"]}).budgets == ["10", "50%", "all"]


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        (
            {"validation": {"fold": 3}},
            "validation.fold",
            "unknown key. Did you mean 'folds'? Known: draws, folds, seeds",
        ),
        (
            {"encoders": {"mine": {"method": "simclr", "epohs": 50}}},
            "encoders.mine.epohs",
            f"unknown key. Did you mean 'epochs'? Known: {PRETRAIN_KEYS}",
        ),
        (
            {"encoders": {"simclr": {"method": "simclr", "epohs": 50}}},
            "encoders.simclr.epohs",
            f"unknown key. Did you mean 'epochs'? Known: {PRETRAIN_KEYS}",
        ),
        (
            {"encoders": {"mine": {"method": "simcrl"}}},
            "encoders.mine.method",
            f"'simcrl' is not a method. Did you mean 'simclr'? Known: {METHODS}",
        ),
        (
            {"encoders": {"mine": {"epochs": 3}}},
            "encoders.mine.method",
            f"is missing: which method makes this encoder? Known: {ALL_METHODS}",
        ),
        (
            {"encoders": {"mine": 3}},
            "encoders.mine",
            "must be a mapping (key: value) (given: 3)",
        ),
        (
            {"encoders": {"Mine!": {"method": "mae"}}},
            "encoders.Mine!",
            "'Mine!' is not a name. Use a-z, 0-9, '.' and '-' (names become file names).",
        ),
        (
            {"encoders": {"mae": {"method": "simclr"}}},
            "encoders.mae",
            "'mae' is the name of another method. Choose another name.",
        ),
        (
            {"baselines": ["scrach"]},
            "baselines.0",
            "'scrach' is not known. Did you mean 'scratch'? "
            "Known: imagenet, majority, random, scratch, scratch-long",
        ),
        ({"seed": -1}, "seed", "must be at least 0 (given: -1)"),
        (
            {"encoders": {"a": {"method": "mae", "mask_ratio": 1}}},
            "encoders.a.mask_ratio",
            "must be below 1 (given: 1)",
        ),
        (
            {"encoders": {"a": {"method": "mae", "warmup": 2}}},
            "encoders.a.warmup",
            "must be at most 1 (given: 2)",
        ),
        (
            {"compare": {"smallest_gain": 0}},
            "compare.smallest_gain",
            "must be above 0 (given: 0)",
        ),
        (
            {"encoders": {"a": {"method": "mae", "lr": math.nan}}},
            "encoders.a.lr",
            "must be a finite number (given: nan)",
        ),
        (
            {"encoders": {"a": {"method": "mae", "epochs": "many"}}},
            "encoders.a.epochs",
            "must be a whole number (given: 'many')",
        ),
        ({"budgets": ["5x"]}, "budgets.0", f"'5x' is not a budget. {BUDGET}"),
        ({"budgets": [10, 0]}, "budgets.1", f"'0' is not a budget. {BUDGET}"),
        ({"budgets": ["101%"]}, "budgets.0", f"'101%' is not a budget. {BUDGET}"),
        ({"budgets": [2.5]}, "budgets.0", f"'2.5' is not a budget. {BUDGET}"),
        ({"budgets": []}, "budgets", "has 0 entries; at least 1 needed."),
        ({"recipes": {}}, "recipes", "has 0 entries; at least 1 needed."),
        (
            {"recipes": {"a": {"percentiles": [99, 1]}}},
            "recipes.a.percentiles",
            "low must be below high (given: [99, 1]).",
        ),
        (
            {"datasets": {"mine": {"root": "a", "npz": "b"}}},
            "datasets.mine",
            "give one of root, npz, phantom; root and npz are there.",
        ),
        (
            {"datasets": {"mine": {"table": "labels.csv"}}},
            "datasets.mine",
            "give one of root, npz, phantom; none is there.",
        ),
        (
            {"datasets": {"mine": {"root": "a", "pools": ["luna"]}, "lung": {"root": "b"}}},
            "datasets.mine.pools",
            "'luna' is not a data set. Did you mean 'lung'? Known: lung, mine",
        ),
        (
            {"datasets": {"a": {"root": "a", "pools": ["b"]}, "b": {"root": "b", "pools": ["a"]}}},
            "datasets",
            "all are pools of others; one must be evaluated.",
        ),
        (
            {"encoders": SIMCLR, "ablations": {"v": {"of": "simclr", "epohs": [1]}}},
            "ablations.v.epohs",
            "not a setting of encoder or recipe. Did you mean 'epochs'? Known: accumulate, "
            "augment, backbone, batch_size, channels, checkpoint_minutes, clahe, clip_grad_norm, "
            "crop, ema, epochs, fit, ...",
        ),
        (
            {"encoders": SIMCLR, "ablations": {"v": {"of": "simclr", "epochs": [50, 0]}}},
            "ablations.v.epochs",
            "must be at least 1 (given: 0)",
        ),
        (
            {"encoders": SIMCLR, "ablations": {"v": {"of": "simclr", "size": [8]}}},
            "ablations.v.size",
            "must be at least 16 (given: 8)",
        ),
        (
            {"encoders": SIMCLR, "ablations": {"v": {"of": "simclr", "epochs": 50}}},
            "ablations.v.epochs",
            "must be a list, e.g. [a, b] (given: 50)",
        ),
        (
            {"encoders": SIMCLR, "ablations": {"v": {"of": "simclr", "method": ["maee"]}}},
            "ablations.v.method",
            f"'maee' is not a method. Did you mean 'mae'? Known: {METHODS}",
        ),
        (
            {"encoders": SIMCLR, "ablations": {"v": {"of": "simclr"}}},
            "ablations.v",
            "has no axis. Add one, e.g. `epochs: [50, 200]`.",
        ),
        (
            {"encoders": SIMCLR, "ablations": {"v": {"of": "simcl", "epochs": [50]}}},
            "ablations.v.of",
            "'simcl' is not an encoder. Did you mean 'simclr'? Known: simclr",
        ),
        (
            {"encoders": {}, "baselines": []},
            "encoders",
            "neither encoders nor baselines: nothing to compare.",
        ),
    ],
)
def test_one_problem_is_said_once_and_in_words(changes, place, message):
    assert said(**changes) == [(place, message)]


def test_everything_at_once_and_nothing_that_only_follows():
    problems = said(
        datasets={"mine": {"root": "a", "npz": "b", "tabel": "x"}, "more": {"root": "c"}},
        recipes={"small": {"size": 2}},
        encoders={"simclr": {"method": "simclr", "epohs": 3}, "mine": {"method": "simcrl"}},
        # `mine` is at fault itself: that ablations vary it is no problem of theirs
        ablations={
            "a": {"of": "mine", "epochs": [1]},
            "b": {"of": "simclr", "recipe": "smal", "epochs": [1]},
        },
        budgets=["5x"],
        seeds=3,
    )
    assert {place for place, _ in problems} == {
        "datasets.mine",
        "datasets.mine.tabel",
        "recipes.small.size",
        "encoders.simclr.epohs",
        "encoders.mine.method",
        "ablations.b.recipe",
        "budgets.0",
        "seeds",
    }
    assert len(problems) == 8


def test_the_text_of_an_error_is_a_list_under_a_title():
    with pytest.raises(UserError) as caught:
        load({**SMALLEST, "validation": {"folds": 1, "draw": 2}}, "config/config.yaml")
    assert str(caught.value) == (
        "config/config.yaml: 2 problems\n"
        "  validation.folds  must be at least 2 (given: 1)\n"
        "  validation.draw   unknown key. Did you mean 'draws'? Known: draws, folds, seeds"
    )


@pytest.mark.parametrize("raw", [[], "text", None])
def test_no_mapping_is_no_config(raw):
    with pytest.raises(UserError, match="a config is a mapping of settings"):
        load(raw, "my.yaml")


def test_params_of_a_script_are_explained_without_the_method_as_a_key():
    raw = {"encoder": "a", "settings": {"method": "simclr", "epohs": 3}, "recipe": {}}
    with pytest.raises(UserError) as caught:
        parse(PretrainParams, {**raw, "dataset": "d", "fold": "0", "seed": 0}, "--params")
    message = f"unknown key. Did you mean 'epochs'? Known: {PRETRAIN_KEYS}"
    assert caught.value.problems == [("settings.epohs", message)]
    with pytest.raises(UserError, match="--params: settings are a mapping; this is a list"):
        parse(FoldsParams, [1], "--params")


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_every_method_can_be_an_encoder_under_its_own_name(name):
    config = load({**WITH_VALUES, "encoders": {name: {"method": name}}})
    assert config.encoders[name].method == name


def test_a_method_that_wants_values_is_refused_where_there_are_none():
    place, message = said(encoders={"contig": {"method": "contig"}})[0]
    assert place == "datasets.mine.values"
    assert message == (
        "encoder 'contig' (contig) contrasts scans with tables, and there is none. Name some, e.g. "
        "`values: {labs: {table: labs.csv}}`, or leave the encoder out."
    )
    two = {"labs": {"table": "labs.csv"}, "genes": {"table": "genes.parquet", "by": "path"}}
    datasets = {"mine": {**SMALLEST["datasets"]["mine"], "values": two}}
    wrong = {
        "a": {"method": "contig", "aggregation": "none"},
        "b": {"method": "contig", "tables": ["lab"]},
    }
    assert said(datasets=datasets, encoders=wrong) == [
        (
            "encoders.a.aggregation",
            "'none' is for one table, and 2 would be used. Name one in `tables`, or take outer or inner.",
        ),
        (
            "encoders.b.tables",
            "'lab' is not among the values of data set mine. Did you mean 'labs'? Known: genes, labs",
        ),
    ]
    fine = {"a": {"method": "contig", "aggregation": "none", "tables": ["labs"]}}
    assert load({**SMALLEST, "datasets": datasets, "encoders": fine}).encoders["a"].tables == ["labs"]  # fmt: skip
    pooled = {"mine": {**datasets["mine"], "pools": ["other"]}, "other": {"root": "x"}}
    load({**SMALLEST, "datasets": pooled, "encoders": fine})  # a pool need not have any


def test_an_ablation_does_not_bring_a_method_that_wants_values():
    config = load({
        **SMALLEST, "encoders": SIMCLR, "ablations": {"x": {"of": "simclr", "method": ["simclr", "contig"]}},
    })  # fmt: skip
    with pytest.raises(UserError, match=r"encoder 'simclr-contig' \(contig\) contrasts scans"):
        expand(config)


def test_config_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"no such file\. Copy config/examples/template\.yaml"):
        read_config_file(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(UserError, match="not valid YAML"):
        read_config_file(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(UserError, match="this is a list"):
        read_config_file(tmp_path / "list.yaml")
    # An object in YAML would run code when built.
    (tmp_path / "object.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError, match="not valid YAML"):
        read_config_file(tmp_path / "object.yaml")


def test_loading_does_not_change_what_was_given():
    raw = {**SMALLEST, "encoders": {"mine": {"method": "simcrl"}}, "budgets": ["5x"]}
    before = yaml.safe_dump(raw)
    with pytest.raises(UserError):
        load(raw)
    assert yaml.safe_dump(raw) == before
