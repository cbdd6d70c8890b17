"""The expanded plan: names, legal products, matched baselines, files."""

import pytest

from fewscans.config import load
from fewscans.errors import UserError
from fewscans.plan import Paths, as_json, expand


def make(**changes):
    raw = {
        "datasets": {"lung": {"root": "scans"}},
        "recipes": {"main": {"size": 64}},
        "encoders": {"simclr": {"method": "simclr", "backbone": "test_resnet"}},
        "baselines": ["majority", "random", "scratch"],
        "protocols": ["linear", "finetune"],
    }
    return expand(load({**raw, **changes}))


def test_arms_are_legal_products_only():
    assert list(make().arms) == [
        "majority.main.prior",
        "random-test-resnet.main.linear",
        "scratch-test-resnet.main.finetune",
        "simclr.main.linear",
        "simclr.main.finetune",
    ]


def test_an_encoder_without_a_legal_protocol_has_no_job():
    plan = make(protocols=["linear"], baselines=["random", "scratch"])
    assert {run.encoder for run in plan.runs()} == {"random-test-resnet", "simclr"}
    assert list(plan.arms) == ["random-test-resnet.main.linear", "simclr.main.linear"]
    assert plan.arms["simclr.main.linear"].baseline is None


def test_baselines_are_made_once_per_network_and_recipe():
    plan = make(
        recipes={"small": {"size": 32}, "large": {"size": 64}},
        encoders={
            "a": {"method": "simclr", "backbone": "test_resnet"},
            "b": {"method": "simclr", "backbone": "test_resnet", "epochs": 7},
            "m": {"method": "mae", "backbone": "test_vit"},
        },
        baselines=["scratch"],
    )
    scratch = [pair for pair in plan.pairs if pair[0].startswith("scratch")]
    assert sorted(scratch) == [
        ("scratch-test-resnet", "large"),
        ("scratch-test-resnet", "small"),
        ("scratch-test-vit", "large"),
        ("scratch-test-vit", "small"),
    ]


def test_a_contrast_differs_in_the_encoder_alone():
    plan = make(
        recipes={"small": {"size": 32}, "large": {"size": 64}},
        encoders={
            "r": {"method": "simclr", "backbone": "test_resnet"},
            "v": {"method": "mae", "backbone": "test_vit"},
        },
        compare={"baseline": "random"},
    )
    for arm in plan.arms.values():
        if arm.baseline is None:
            continue
        other = plan.arms[arm.baseline]
        assert other.recipe == arm.recipe
        assert (
            plan.encoders[other.encoder].settings.backbone
            == plan.encoders[arm.encoder].settings.backbone
        )
        if arm.protocol in ("linear", "knn"):
            assert other.protocol == arm.protocol


def test_ablation_is_a_product_of_encoder_and_recipe_axes_with_readable_names():
    plan = make(
        encoders={"simclr": {"method": "simclr", "backbone": "test_resnet", "epochs": 100}},
        ablations={"x": {"of": "simclr", "epochs": [50, 100], "size": [32, 64]}},
    )
    assert [pair for pair in plan.pairs if pair[0].startswith("simclr")] == [
        ("simclr", "main"),
        ("simclr-epochs50", "main-size32"),
        ("simclr-epochs50", "main"),
        ("simclr", "main-size32"),
    ]
    assert plan.recipes["main-size32"].size == 32
    assert plan.encoders["simclr-epochs50"].settings.epochs == 50
    assert ("scratch-test-resnet", "main-size32") in plan.pairs


def test_method_is_an_axis_and_keeps_shared_settings():
    plan = make(
        encoders={"simclr": {"method": "simclr", "backbone": "test_resnet", "epochs": 9}},
        ablations={
            "methods": {"of": "simclr", "method": ["simclr", "simmim"], "strength": [0.5, 1.0]}
        },
    )
    made = plan.encoders["simclr-simmim-strength0.5"].settings
    assert (made.method, made.epochs, made.backbone, made.strength) == (
        "simmim",
        9,
        "test_resnet",
        0.5,
    )
    assert "simclr-strength0.5" in plan.encoders


def test_names_are_file_names():
    plan = make(
        ablations={
            "x": {"of": "simclr", "backbone": ["resnet10t", "test_resnet"], "normalise": ["window"]}
        }
    )
    for name in [*plan.encoders, *plan.recipes, *plan.arms]:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-"), name


def test_pools_are_not_evaluated_and_official_has_one_fold():
    plan = make(
        datasets={"a": {"root": "a", "split": "official", "pools": ["p"]}, "p": {"root": "p"}}
    )
    assert plan.evaluated == ["a"]
    assert {run.fold for run in plan.runs()} == {"official"}


def test_majority_is_run_once_and_for_one_recipe():
    plan = make(
        recipes={"small": {"size": 32}, "large": {"size": 64}}, validation={"folds": 2, "seeds": 3}
    )
    majority = [run for run in plan.runs() if run.encoder == "majority"]
    assert [(run.recipe, run.fold, run.seed) for run in majority] == [
        ("small", "0", 0),
        ("small", "1", 0),
    ]


def test_scratch_long_gets_the_longest_pretraining_of_its_network():
    plan = make(
        encoders={
            "a": {"method": "simclr", "backbone": "test_resnet", "epochs": 10, "batch_size": 32},
            "b": {"method": "simclr", "backbone": "test_resnet", "epochs": 20, "batch_size": 128},
            "v": {"method": "mae", "backbone": "test_vit", "epochs": 1000},
        }
    )
    lengths = plan.pretrainings("test_resnet", None, "main")
    assert [length.count(320) for length in lengths] == [100, 40]


def test_transductive_encoders_are_shared_by_folds():
    plan = make(
        encoders={"t": {"method": "simclr", "backbone": "test_resnet", "transductive": True}}
    )
    keys = {plan.encoder_key(run) for run in plan.runs() if run.encoder == "t"}
    assert keys == {f"t/main/lung/all/{seed}" for seed in range(3)}


def test_plan_file_names_every_prediction_and_no_place_of_the_data():
    started = {"method": "simclr", "backbone": "test_resnet", "start": "/secret/weights.pth"}
    plan = make(
        data_root="/secret/place",
        encoders={"mine": started},
        imagenet_weights={"test_resnet": "/secret/hub.pth"},
        baselines=["imagenet"],
    )
    written = as_json(plan, Paths("work", "results"), {})
    assert len(written["runs"]) == len(list(plan.runs()))
    assert {arm["arm"] for arm in written["arms"]} == {
        arm for run in written["runs"] for arm in run["arms"]
    }
    assert "secret" not in str(written)
    assert all("root" not in dataset for dataset in written["config"]["datasets"].values())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"encoders": {"m": {"method": "mae", "backbone": "resnet18"}}},
            "mae needs a plain ViT; 'resnet18' is none",
        ),
        ({"encoders": {"scratch": {"method": "simclr"}}}, "is the name of another method"),
        ({"datasets": {"a": {"root": "a", "pools": ["b"]}}}, "'b' is not a data set"),
    ],
)
def test_configs_that_cannot_be_run_are_refused_in_words(changes, line):
    with pytest.raises(UserError, match=line):
        make(**changes)
