"""Encoders that start from others: chains in the config, in the plan, in training, and who counts as seen."""

from __future__ import annotations

import copy
import json

import pandas as pd
import pytest
import torch
from engine_factory import SIZE, make_folds, make_params, make_store
from pretrain_factory import Place
from safetensors.torch import load_file, save_file

from fewscans import networks
from fewscans.compat import ensure_torchvision
from fewscans.config import load
from fewscans.contracts import read_table, write_table
from fewscans.errors import UserError
from fewscans.labelled import check_not_seen
from fewscans.networks import tokens as networks_tokens
from fewscans.plan import Run, expand
from fewscans.pretrain import pretrain
from fewscans.start import Start

ensure_torchvision()
import timm  # noqa: E402

DATA = {
    "datasets": {
        "own": {"root": "a", "table": "t.csv", "pools": ["more"]},
        "more": {"root": "b", "table": "t.csv"},
    }
}
NET = {"backbone": "test_resnet", "epochs": 2}
CHAIN = {
    "first": {"method": "simclr", **NET, "start": "imagenet", "scans": "pools", "stage": True},
    "second": {"method": "simclr", **NET, "start": "first", "scans": "own"},
}


def problems(**encoders):
    with pytest.raises(UserError) as refused:
        load({**DATA, "encoders": encoders})
    return "\n".join(f"{place}: {said}" for place, said in refused.value.problems)


def test_a_chain_is_one_arm_and_each_stage_a_job():
    plan = expand(load({**DATA, "encoders": CHAIN, "baselines": ["scratch"]}))
    assert {arm.encoder for arm in plan.arms.values()} == {"scratch-test-resnet", "second"}
    assert plan.start_of("second") == "first"
    assert plan.start_of("first") == "imagenet-test-resnet"
    assert plan.start_of("imagenet-test-resnet") is None
    assert plan.encoder_key(Run("own", "first", "main", "1", 0)) == "first/main/own/1/0"
    key = plan.encoder_key(Run("own", "imagenet-test-resnet", "main", "1", 0))
    assert key == "imagenet-test-resnet/main/all/all/all"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"second": {"start": "fisrst"}}, "Did you mean 'first'?"),
        ({"first": {"start": "second"}}, "encoders.first.start: leads back to itself"),
        ({"second": {"start": "imagenet"}}, "encoders.first.stage: nothing starts from it"),
        ({"second": {"backbone": "test_vit"}}, "Give both the same `backbone`"),
        ({"second": {"transductive": True}}, "only one is transductive"),
        ({"first": {"method": "scratch"}}, "has no trained weights"),
    ],
)
def test_chains_that_make_no_sense_are_refused(changes, said):
    encoders = {name: {**given, **changes.get(name, {})} for name, given in CHAIN.items()}
    if changes.get("first", {}).get("method") == "scratch":
        encoders["first"] = {"method": "scratch", "backbone": "test_resnet"}
    assert said in problems(**encoders)


def test_pools_without_pools_are_refused():
    with pytest.raises(UserError, match="no data set has `pools`"):
        load({"datasets": {"own": {"root": "a", "table": "t.csv"}}, "encoders": {
            "mine": {"method": "simclr", "scans": "pools"}}})  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("stages"))
    made.pool = make_store(made.folder / "pool", n=6, dataset="more")
    made.folds = make_folds(
        made.folder / "folds.parquet", made.store.scans, pool=tuple(made.pool.scans)
    )
    return made


def run(place, name, begin=None, **settings):
    params = make_params("simclr", **settings)
    out = place.folder / name
    pretrain(
        params, place.store, place.folds, {"more": place.pool}, out,
        place.folder / "cache", place.folder / "checkpoints", start=begin,
    )  # fmt: skip
    return out, json.loads((out / "encoder.json").read_text())


def test_each_stage_sees_its_own_scans_starts_where_the_last_ended_and_names_it(place):
    first, of_pool = run(place, "first", scans="pools")
    assert set(of_pool["source_scans"]) == set(place.pool.scans)
    second, own = run(place, "second", first, scans="own", start="first", lr=1e-12)
    assert not set(own["source_scans"]) & set(place.pool.scans)
    assert own["parent"] == of_pool["digest"]
    assert own["parents"][0]["source_scans"] == of_pool["source_scans"]
    before, after = (
        load_file(first / "encoder.safetensors"),
        load_file(second / "encoder.safetensors"),
    )
    weights = [name for name, value in before.items() if value.ndim == 4]
    assert weights
    for name in weights:  # a learning rate of nothing: they are still where they began
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    _, elsewhere = run(place, "other", scans="own", lr=1e-12)
    assert elsewhere["digest"] != own["digest"]
    assert elsewhere["parents"] == []
    from_file = first / "encoder.safetensors"
    _, plain = run(place, "plain", from_file, scans="own", start="x/encoder.safetensors", lr=1e-12)
    assert plain["parents"][0]["method"] == "weights"


def test_names_of_stages_change_nothing(place):
    first, _ = run(place, "first", scans="pools")
    _, one = run(place, "one", first, scans="own", start="first")
    _, two = run(place, "two", first, scans="own", start="elsewhere/first", stage=True)
    assert one["digest"] == two["digest"]


def test_a_start_that_saw_a_test_group_is_refused_and_so_is_what_came_of_it(place):
    seen, _ = run(place, "seen", scans="own")  # of fold 0
    with pytest.raises(UserError, match="has seen 4 scans of groups that fold '1' tests"):
        Start.open(seen).check(place.folds, "1", transductive=False)
    grandchild = {"source_scans": [], "parents": [Start.open(seen).facts]}
    with pytest.raises(UserError, match="parent mine was pretrained on it"):
        check_not_seen(grandchild, place.folder, place.folds, "1")
    assert check_not_seen(grandchild, place.folder, place.folds, "0") == []


def test_a_transductive_start_makes_what_follows_transductive(place, tmp_path):
    folds = read_table(place.folds, "folds")
    write_table(tmp_path / "all.parquet", "folds", pd.concat([folds, folds.assign(fold="all")]))
    start = Start(place.folder / "encoder.safetensors", {"transductive": True}, "d")
    start.check(place.folds, "0", transductive=True)
    with pytest.raises(UserError, match="must say the same"):
        start.check(place.folds, "0", transductive=False)


@pytest.mark.parametrize("kind", ["missing", "folder", "other network", "not given"])
def test_what_cannot_be_started_from_is_said(place, tmp_path, kind):
    said = {
        "missing": "no such file or encoder",
        "folder": "encoder.json is missing",
        "other network": "not weights of",
        "not given": "give it with --start",
    }[kind]
    path = tmp_path / "here"
    if kind == "folder":
        path.mkdir()
    if kind == "other network":
        path = tmp_path / "weights.safetensors"
        save_file({"some.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=said):
        run(place, f"bad-{kind}", None if kind == "not given" else path, start=str(path))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_what_foreign_weights_take_is_handed_on(place, tmp_path, backbone):
    """They were trained on standardised images: every way into the network does it, and so do its descendants."""
    sized = {"img_size": SIZE} if "vit" in backbone else {}
    foreign = timm.create_model(backbone, **sized)
    save_file(foreign.state_dict(), tmp_path / "weights.safetensors")
    mean = torch.tensor(foreign.pretrained_cfg["mean"]).mean()
    sd = torch.tensor(foreign.pretrained_cfg["std"]).mean()
    method = "mae" if "vit" in backbone else "simclr"
    out = place.folder / f"foreign-{backbone}"
    params = make_params(method, backbone=backbone, start="x/weights.safetensors", patch_size=None)
    pretrain(
        params, place.store, place.folds, {"more": place.pool}, out, place.folder / "cache",
        place.folder / "checkpoints", start=tmp_path / "weights.safetensors",
    )  # fmt: skip
    trained, meta = networks.load_encoder(out, params.recipe.shape)
    again = Start.open(out).make(backbone, params.recipe.shape, None).eval()
    plain = networks.build(meta["network"]["backbone"], meta["network"]["kwargs"])
    plain.load_state_dict(load_file(out / "encoder.safetensors"))
    trained, plain = trained.eval(), plain.eval()
    x = torch.rand(2, 1, SIZE, SIZE)
    expected = plain.forward_features((x - mean) / sd)
    for model in (trained, again, copy.deepcopy(trained)):
        torch.testing.assert_close(model.forward_features(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(x), plain((x - mean) / sd), rtol=1e-4, atol=1e-5)
    if method == "mae":
        own = networks_tokens.of(trained).patches(x)
        torch.testing.assert_close(own, networks_tokens.of(plain).patches((x - mean) / sd))
