"""The page that asks whether each method learns: what it is held against, and what it says of that."""

from __future__ import annotations

import json

import pytest
from results_factory import make_results

from fewscans.config.stages import AggregateParams
from fewscans.learns import learns
from fewscans.report.learns import page
from scripts import learns as part_script
from scripts import learns_page as page_script

PARAMS = {"score": {"resamples": 200}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_results(
        tmp_path_factory.mktemp("learns"), validation={"folds": 3, "seeds": 2, "draws": 2}
    )


@pytest.fixture(scope="module")
def part(made):
    plan = json.loads(made.plan.read_text())
    return learns(plan, AggregateParams.model_validate(PARAMS), made.root)


def rows(part, **wanted):
    return [
        row
        for row in part["datasets"]["phantom"]["rows"]
        if all(row[key] == value for key, value in wanted.items())
    ]


def test_each_arm_is_held_against_its_own_network(part):
    for row in rows(part, method="simclr"):
        against = {"linear": "above_random", "finetune": "above_scratch"}.get(row["protocol"])
        assert {key for key in row if key.startswith("above")} == ({against} if against else set())
    (untrained,) = rows(part, method="random", backbone="test_vit", budget="all")
    assert "above_random" not in untrained
    (mae,) = rows(part, method="mae", protocol="linear", budget="all")
    diff, low_alone, high_alone, low, high = mae["above_random"]
    assert diff == pytest.approx(mae["value"] - untrained["value"], abs=0.02)
    assert low < low_alone < diff < high_alone < high


def test_provenance_is_there(part):
    one = part["datasets"]["phantom"]
    assert one["trainings"]["simclr"]["trainings"] == 6  # three folds, two seeds
    assert one["trainings"]["simclr"]["steps"] == 200
    assert one["trainings"]["simclr"]["effective_rank"] > 0
    assert one["folds"] == 3
    assert "3 folds, 2 seeds, 2 draws of labels" in page([part])
    assert set(one["digests"]) == {"config", "data", "splits", "code"}


WORDS = [
    ([0.1, 0.04, 0.16, 0.02, 0.2], "**above**"),
    ([0.1, 0.01, 0.19, -0.02, 0.22], "above by itself"),
    ([0.1, -0.02, 0.22, -0.05, 0.25], "cannot tell"),
    ([-0.1, -0.16, -0.04, -0.2, -0.02], "below"),
]


@pytest.mark.parametrize(("above", "word"), WORDS)
@pytest.mark.parametrize("protocol", ["linear", "finetune"])
def test_a_method_is_above_where_its_whole_interval_says_so(part, above, word, protocol):
    changed = json.loads(json.dumps(part))
    unknown = [0.1, -0.02, 0.22, -0.05, 0.25]
    for row in changed["datasets"]["phantom"]["rows"]:
        for name, of in (("above_random", "linear"), ("above_scratch", "finetune")):
            if row["method"] == "simclr" and row["protocol"] == of:
                row[name] = above if of == protocol else unknown
    text = page([changed])
    cells = [word, "cannot tell"] if protocol == "linear" else ["cannot tell", word]
    assert "| method | network | phantom: probe | phantom: fine-tuned |" in text
    assert f"| SimCLR | `test_resnet` | {' | '.join(cells)} |" in text
    none = text.partition("**No gain shown anywhere: ")[2].partition(".**")[0]
    assert ("SimCLR" in none) == ("above" not in word)


def test_networks_of_several_data_sets_share_a_row_and_those_of_one_do_not(part):
    other = json.loads(json.dumps(part).replace("test_resnet", "monai-test-resnet"))
    other["datasets"] = {"volumes": other["datasets"]["phantom"]}
    text = page([part, other])
    assert text.count("| SimCLR | `test_resnet`, `monai-test-resnet` | ") == 1
    rows = other["datasets"]["volumes"]["rows"]
    rows += [{**row, "backbone": "slices-test"} for row in rows if row["method"] == "simclr"]
    text = page([part, other])
    assert "| SimCLR | `test_resnet`, `monai-test-resnet` | " in text
    assert "| SimCLR | `slices-test` | not run | not run | " in text


def test_of_several_classes_an_arm_has_one_row(tmp_path):
    made = make_results(tmp_path, classes=("normal", "benign", "malignant"), n_patients=45)
    plan = json.loads(made.plan.read_text())
    found = learns(plan, AggregateParams.model_validate(PARAMS), made.root)["datasets"]["phantom"]
    arms = [(r["encoder"], r["backbone"], r["protocol"], r["budget"]) for r in found["rows"]]
    assert len(arms) == len(set(arms))


def test_the_scripts_write_the_page(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made.root)
    out, text = tmp_path / "learns.json", tmp_path / "learns.md"
    assert (
        part_script.main(
            ["--params", json.dumps(PARAMS), "--plan", str(made.plan), "--out", str(out)]
        )
        == 0
    )
    assert page_script.main([str(out), str(out), "--out", str(text)]) == 0
    written = text.read_text()
    assert written.startswith("# Does it learn")
    assert written.count("## phantom") == 2
    assert "| majority |" in written
    assert "nan" not in written
