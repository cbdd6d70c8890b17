"""The packed stage: what is written and refused, and that results follow from inputs alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fewscans import networks
from fewscans.config.stages import FinetuneParams
from fewscans.contracts import read_metadata, read_table, write_table
from fewscans.errors import UserError
from fewscans.finetune import Files, finetune
from fewscans.labelled import read_fold
from fewscans.protocols import finetune as tuning
from fewscans.protocols.source import Source
from fewscans.protocols.task import Task
from fewscans.weights import fetch
from tests.labelled_factory import make_tiny, scan_key

ROOT = Path(__file__).parent.parent
TUNE = {"steps": 8, "batch_size": 8, "inner_folds": 2}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def make_params(method="scratch", protocols=("finetune",), tune=TUNE, **more):
    settings = (
        {"method": method}
        if method == "majority"
        else {"method": method, "backbone": "test_resnet"}
    )
    values = {
        "encoder": method,
        "settings": settings,
        "recipe": {"size": 16},
        "recipe_name": "small",
        "protocols": list(protocols),
        "protocol_settings": {"finetune": tune},
        "dataset": "tiny",
        "classes": [],
        "fold": "0",
        "seed": 0,
        **more,
    }
    return FinetuneParams.model_validate(values)


def make_files(tiny, out, **more):
    values = {
        "labels": tiny["labels"],
        "folds": tiny["folds"],
        "budgets": tiny["budgets"],
        "store": tiny["store"],
        "predictions": out / "predictions.parquet",
        "embeddings": out / "embeddings",
        "cache": out / "cache",
        **more,
    }
    return Files(**values)


def read_all(files):
    """(predictions, facts of the runs without their seconds)."""
    runs = read_metadata(files.predictions)["runs"]
    return read_table(files.predictions, "predictions"), [
        {key: value for key, value in run.items() if key != "device_seconds"} for run in runs
    ]


def assert_same(one, other):
    left, right = read_all(one), read_all(other)
    pd.testing.assert_frame_equal(left[0], right[0], check_exact=True)
    assert left[1] == right[1]


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    files = make_files(tiny, tmp_path_factory.mktemp("undisturbed"))
    assert finetune(make_params(), files) == {"runs": 3, "from_cache": 0}
    return files


@pytest.fixture(scope="module")
def encoder(tiny, tmp_path_factory):
    """A folder as pretrain leaves it, with the fold's training scans as sources."""
    folder = tmp_path_factory.mktemp("encoder")
    model = networks.make_encoder("test_resnet", size=16, channels=1, patch_size=None, init_key=7)
    networks.save_encoder(folder / "encoder.safetensors", model)
    write_meta(folder, source_scans=[scan_key(i + 1) for i in range(16, 40)])
    return folder


def write_meta(folder, **more):
    kwargs = networks.network_kwargs("test_resnet", size=16, channels=1)
    facts = {
        "method": "simclr",
        "input": {"size": 16, "channels": 1},
        "device_seconds": 12.5,
        "transductive": False,
        "network": {"backbone": "test_resnet", "kwargs": kwargs},
        "digest": "abc",
        "parents": [],
        **more,
    }
    (folder / "encoder.json").write_text(json.dumps(facts))


# -- what is written ------------------------------------------------------------------------------


def test_every_run_predicts_the_labelled_test_scans_and_its_inner_folds(tiny, undisturbed):
    table, runs = read_all(undisturbed)
    labels = read_table(tiny["labels"], "labels").set_index("scan")
    prob = np.array(table["prob"].tolist())
    np.testing.assert_allclose(prob.sum(axis=1), 1, atol=1e-12)
    assert set(table["arm"]) == {"scratch.small.finetune"}
    assert (
        table["target"].to_numpy() == (labels.loc[table["scan"], "target"] == "upright").to_numpy()
    ).all()
    for run in runs:
        own = table[(table["budget"] == run["budget"]) & (table["draw"] == run["draw"])]
        assert sorted(own.loc[own["role"] == "test", "scan"]) == sorted(
            scan_key(i + 1) for i in range(16)
        )
        # Two of the three inner folds, as the settings say; no inner fold, no row.
        assert set(own.loc[own["role"] == "val", "inner"]) == (
            {0, 1} if run["budget"] == "all" else set()
        )
    assert [(run["budget"], run["draw"]) for run in runs] == [("4", 0), ("4", 1), ("all", 0)]
    assert [run["n_labelled_patients"] for run in runs] == [4, 4, 10]
    assert [run["n_labelled_scans"] for run in runs] == [8, 8, 20]
    assert runs[0]["choices"] == {"steps": 8, "by": "setting"}
    assert "no-inner-validation" in runs[0]["flags"]
    assert runs[2]["choices"]["by"] == "inner-folds"
    assert runs[2]["choices"]["steps"] in (2, 4, 6, 8)
    metadata = read_metadata(undisturbed.predictions)
    assert metadata["task"] == "classification"
    assert metadata["classes"] == ["lying", "upright"]
    assert metadata["encoder"]["method"] == "scratch"


def test_fine_tuning_learns_what_can_be_seen(tiny, tmp_path):
    files = make_files(tiny, tmp_path)
    finetune(make_params(tune={"steps": 40, "batch_size": 16, "lr": 0.003}), files)
    table, _ = read_all(files)
    tested = table[(table["role"] == "test") & (table["budget"] == "all")]
    right = (np.array(tested["prob"].tolist()).argmax(axis=1) == tested["target"]).mean()
    assert right >= 0.9


def test_scratch_embeds_its_test_scans_and_a_frozen_encoder_all(
    tiny, undisturbed, encoder, tmp_path
):
    half = np.load(undisturbed.embeddings / "embeddings.npy")
    rows = read_table(undisturbed.embeddings / "embeddings.parquet", "embeddings")
    assert half.shape == (16, 96)
    assert half.dtype == np.float16
    assert set(rows["role"]) == {"test"}
    files = make_files(tiny, tmp_path, encoder=encoder)
    finetune(make_params("simclr", ["linear", "knn"]), files)
    half = np.load(files.embeddings / "embeddings.npy")
    rows = read_table(files.embeddings / "embeddings.parquet", "embeddings")
    assert half.shape == (40, 96)
    assert rows["role"].value_counts().to_dict() == {"train": 24, "test": 16}
    assert read_metadata(files.predictions)["encoder"]["device_seconds"] == 12.5
    source = Source(make_params("simclr", ["linear"]), SimpleNamespace(), [], np.empty(0), encoder)
    store = tuning_store(tiny)
    source.store, source.scans = store, list(rows["scan"])
    np.testing.assert_allclose(half, source.features, rtol=2e-3, atol=1e-4)


def tuning_store(tiny):
    from fewscans.store import Store

    return Store.open(tiny["store"])


def test_majority_reads_no_store_and_never_imports_torch(tiny, tmp_path):
    code = (
        "import sys, runpy; sys.argv[0] = sys.argv[1]; script = sys.argv.pop(1)\n"
        "try: runpy.run_path(script, run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print(sorted(set(sys.modules) & {'torch', 'timm', 'sklearn', 'snakemake', 'SimpleITK'}))"
    )
    arguments = ["--params", make_params("majority", ["prior"]).model_dump_json()]
    for name in ("labels", "folds", "budgets"):
        arguments += [f"--{name}", str(tiny[name])]
    arguments += [
        "--predictions",
        "p.parquet",
        "--embeddings",
        "e",
        "--cache",
        "c",
        "--sidecar",
        "facts.json",
    ]
    done = run_python(["-c", code, str(ROOT / "scripts" / "finetune.py"), *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    table = read_table(tmp_path / "p.parquet", "predictions")
    assert len(table) == 3 * 16 + 20
    assert {tuple(prob) for prob in table["prob"]} == {(0.5, 0.5)}
    assert len(np.load(tmp_path / "e" / "embeddings.npy")) == 0
    assert json.loads((tmp_path / "facts.json").read_text())["runs"] == 3


def run_python(arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


# -- a result follows from its inputs alone -------------------------------------------------------


def test_twice_the_same_and_from_the_cache_the_same_bytes(tiny, undisturbed, tmp_path):
    again = make_files(tiny, tmp_path)
    finetune(make_params(), again)
    assert_same(undisturbed, again)
    before = again.predictions.read_bytes(), (again.embeddings / "embeddings.npy").read_bytes()
    again.predictions.unlink()
    assert finetune(make_params(), again) == {"runs": 3, "from_cache": 3}
    assert (
        again.predictions.read_bytes(),
        (again.embeddings / "embeddings.npy").read_bytes(),
    ) == before


@pytest.mark.slow
def test_a_job_killed_between_runs_goes_on_and_ends_the_same(tiny, tmp_path):
    params, files = make_params(tune={**TUNE, "steps": 12}), make_files(tiny, tmp_path / "killed")
    arguments = [str(ROOT / "scripts" / "finetune.py"), "--params", params.model_dump_json()]
    for name in ("labels", "folds", "budgets", "store", "predictions", "embeddings", "cache"):
        arguments += [f"--{name}", str(getattr(files, name))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None and not list(files.cache.glob("??/*/run.npz")):
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not files.predictions.exists()
    facts = finetune(params, files)
    assert 1 <= facts["from_cache"] < facts["runs"] == 3
    whole = make_files(tiny, tmp_path / "whole")
    finetune(params, whole)
    assert_same(files, whole)


def test_neither_order_nor_company_moves_a_number(tiny, undisturbed, tmp_path):
    budgets = read_table(tiny["budgets"], "budgets")
    mixed = tmp_path / "mixed.parquet"
    write_table(mixed, "budgets", budgets.sample(frac=1, random_state=3))
    files = make_files(tiny, tmp_path / "mixed", budgets=mixed)
    finetune(make_params(), files)
    assert_same(undisturbed, files)
    alone = tmp_path / "alone.parquet"
    write_table(alone, "budgets", budgets[(budgets["budget"] == "4") & (budgets["draw"] == 1)])
    files = make_files(tiny, tmp_path / "alone", budgets=alone)
    finetune(make_params(), files)
    table, runs = read_all(undisturbed)
    own = table[(table["budget"] == "4") & (table["draw"] == 1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, read_all(files)[0], check_exact=True)
    assert read_all(files)[1] == [runs[1]]
    # The added budgets compute only themselves.
    assert finetune(make_params(), replace(files, budgets=tiny["budgets"])) == {
        "runs": 3,
        "from_cache": 1,
    }
    assert_same(undisturbed, files)


def test_a_test_label_is_seen_by_nobody(tiny, undisturbed, tmp_path):
    labels = read_table(tiny["labels"], "labels")
    tested = labels["scan"].isin([scan_key(i + 1) for i in range(16)])
    labels.loc[tested, "target"] = labels.loc[tested, "target"].map(
        {"lying": "upright", "upright": "lying"}
    )
    write_table(tmp_path / "labels.parquet", "labels", labels)
    files = make_files(tiny, tmp_path, labels=tmp_path / "labels.parquet")
    finetune(make_params(), files)
    table, runs = read_all(files)
    before, runs_before = read_all(undisturbed)
    assert runs == runs_before
    assert table["prob"].map(tuple).tolist() == before["prob"].map(tuple).tolist()
    flipped = table["role"] == "test"
    assert (table.loc[flipped, "target"] == 1 - before.loc[flipped, "target"]).all()


def test_a_changed_label_computes_only_the_budgets_that_use_it(tiny, encoder, tmp_path):
    files = make_files(tiny, tmp_path, encoder=encoder)
    params = make_params("simclr", ["linear", "knn"])
    assert finetune(params, files) == {"runs": 6, "from_cache": 0}
    labels = read_table(tiny["labels"], "labels")
    labels.loc[labels["scan"] == scan_key(36), "target"] = "lying"  # p17: in budget `all` alone
    write_table(tmp_path / "labels.parquet", "labels", labels)
    assert finetune(params, replace(files, labels=tmp_path / "labels.parquet")) == {
        "runs": 6,
        "from_cache": 4,
    }


def test_seed_fold_draw_and_setting_make_other_runs(tiny, undisturbed):
    runs = [tuple(run["digest"] for run in read_all(undisturbed)[1])]
    for params in (
        make_params(seed=1),
        make_params(base_seed=1),
        make_params(tune={**TUNE, "lr": 0.1}),
    ):
        files = replace(
            undisturbed,
            predictions=undisturbed.predictions.with_name("other.parquet"),
            embeddings=None,
        )
        finetune(params, files)
        runs.append(tuple(run["digest"] for run in read_all(files)[1]))
    assert len({mark for marks in runs for mark in marks}) == 12


def test_draws_and_folds_are_trainings_of_their_own(tiny, tmp_path):
    tables = {name: read_table(tiny[name], name) for name in ("folds", "budgets")}
    own = tables["budgets"].query("budget == '4' and draw == 0")
    again = {
        "folds": pd.concat([tables["folds"], tables["folds"].assign(fold="1")]),
        "budgets": pd.concat([own, own.assign(draw=1), own.assign(fold="1")]),
    }
    paths = {name: tmp_path / f"{name}.parquet" for name in again}
    for name, frame in again.items():
        write_table(paths[name], name, frame)
    files = make_files(tiny, tmp_path, **paths)
    made = []
    for fold in ("0", "1"):
        finetune(make_params(fold=fold), files)
        table = read_all(files)[0]
        made += [tuple(map(tuple, part["prob"])) for _, part in table.groupby("draw")]
    # The same scans three times, and three different trainings.
    assert len(set(made)) == 3


def test_budgets_stand_in_order_of_size(tiny, tmp_path):
    budgets = read_table(tiny["budgets"], "budgets")
    more = budgets[budgets["budget"] == "all"].iloc[:12].assign(budget="10", inner=-1)
    write_table(tmp_path / "budgets.parquet", "budgets", pd.concat([more, budgets]))
    paths = (tiny["labels"], tiny["folds"], tmp_path / "budgets.parquet")
    fold = read_fold("0", *paths, classes=[])
    shown = [(one.name, one.draw) for one in fold.budgets]
    assert shown == [("4", 0), ("4", 1), ("10", 0), ("all", 0)]


# -- what is refused ------------------------------------------------------------------------------


def refused(params, files):
    with pytest.raises(UserError) as error:
        finetune(params, files)
    return (
        str(error.value)
        .replace(str(files.encoder), "ENCODER")
        .replace(str(files.labels.parent), "DATA")
    )


def test_an_encoder_that_has_seen_test_groups_is_refused(tiny, encoder, tmp_path):
    folder = tmp_path / "leaky"
    folder.mkdir()
    (folder / "encoder.safetensors").write_bytes((encoder / "encoder.safetensors").read_bytes())
    files = make_files(tiny, tmp_path, encoder=folder)
    write_meta(folder, source_scans=[scan_key(i) for i in (3, 20)])
    assert refused(make_params("simclr", ["linear"]), files) == (
        "ENCODER: this encoder has seen 1 scans of groups that fold '0' tests. Pretrain it on this "
        "fold's training scans, or say `transductive: true`: 1 problem\n"
        f"  {scan_key(3)}  of test group g1: it was pretrained on it"
    )
    parent = {
        "name": "mae-luna",
        "source_scans": [],
        "parents": [{"method": "simclr", "source_scans": [scan_key(1)]}],
    }
    write_meta(folder, source_scans=[scan_key(20)], parents=[parent])
    assert f"{scan_key(1)}  of test group g0: parent simclr was pretrained on it" in refused(
        make_params("simclr", ["linear"]), files
    )
    write_meta(folder, source_scans=[scan_key(i + 1) for i in range(16)])
    said = refused(make_params("simclr", ["linear"]), files)
    assert "has seen 16 scans" in said
    assert said.count("of test group") == 5
    write_meta(folder, source_scans=[scan_key(3)], transductive=True)
    finetune(make_params("simclr", ["linear"]), files)
    assert all("transductive" in run["flags"] for run in read_all(files)[1])


def test_what_does_not_go_together_is_said_in_words(tiny, encoder, tmp_path):
    files = make_files(tiny, tmp_path)
    assert (
        refused(make_params(), replace(files, store=None))
        == "--store is missing: this encoder sees images."
    )
    assert (
        refused(make_params("simclr", ["linear"]), files)
        == "--encoder is missing: simclr starts from weights."
    )
    assert refused(make_params(protocols=["linear"]), files) == (
        "scratch: scratch has no protocol 'linear'. It has: finetune."
    )
    assert refused(make_params(fold="7"), files) == "DATA/folds.parquet: no fold '7'. Known: 0"
    assert refused(make_params(classes=["lying", "other"]), files) == (
        "DATA/labels.parquet: labels that are no class: 'upright'. Known: lying, other"
    )
    assert "holds 1 x 16 x 16, but the recipe says 1 x 32 x 32" in refused(
        make_params(recipe={"size": 32}), files
    )
    budgets = read_table(tiny["budgets"], "budgets")
    budgets.loc[0, "scan"] = scan_key(1)
    write_table(tmp_path / "budgets.parquet", "budgets", budgets)
    assert refused(make_params(), replace(files, budgets=tmp_path / "budgets.parquet")).endswith(
        f"1 problem\n  {scan_key(1)}  is labelled in budget 4, but no training scan of fold '0'"
    )


def test_an_encoder_that_has_diverged_is_said_so(tiny, encoder, tmp_path):
    model, _ = networks.load_encoder(encoder, size=16, channels=1)
    next(model.parameters()).data.fill_(float("nan"))
    networks.save_encoder(tmp_path / "encoder.safetensors", model)
    write_meta(tmp_path, source_scans=[])
    said = refused(make_params("simclr", ["linear"]), make_files(tiny, tmp_path, encoder=tmp_path))
    assert said.startswith(
        "simclr: its embeddings are not finite numbers. Its pretraining diverged"
    )


# -- fine-tuning ----------------------------------------------------------------------------------


def make_source(tiny, method="scratch", folder=None):
    store = tuning_store(tiny)
    return Source(make_params(method), store, store.scans, np.arange(16, 40), folder)


def test_steps_are_chosen_by_inner_folds_and_the_model_stops_there(tiny):
    source = make_source(tiny)
    labelled = np.arange(16, 40)
    task = Task(labelled, labelled // 2 % 2, (labelled // 4) % 3, np.arange(16), 2, key=11)
    settings = make_params(
        tune={**TUNE, "steps": 8, "inner_folds": 3, "lr": 0.01}
    ).protocol_settings.finetune
    outcome = tuning.run(task, settings, source)
    stop = outcome.choices["steps"]
    assert stop in (2, 4, 6, 8)
    assert not np.isnan(outcome.val_prob).any()
    seen = {}
    shift = np.log(task.frequencies())
    tuning.train(
        task,
        np.arange(24),
        settings,
        source,
        [stop],
        lambda step, net: seen.update({step: net.predict(source, task.test, shift)}),
    )
    np.testing.assert_array_equal(seen[stop], outcome.test_prob)
    # Other test scans, same choices: nothing of them is looked at.
    other = tuning.run(replace(task, test=np.arange(3)), settings, source)
    assert other.choices == outcome.choices
    np.testing.assert_array_equal(other.val_prob, outcome.val_prob)


def test_classes_come_equally_often_and_scans_in_passes():
    targets = np.array([0] * 9 + [2] * 3)
    keys = np.arange(100, 112, dtype=np.uint64)
    order, turns = tuning.sample_order(targets, keys, 5, steps=6, batch=6, balanced=True)
    drawn = targets[order]
    assert ((drawn == 0).sum(axis=1) == 3).all()
    counts = np.bincount(order.ravel(), minlength=12)
    assert (counts[:9] == 2).all()
    assert (counts[9:] == 6).all()
    # A scan and its pass are drawn once: two views of it always differ.
    assert len({(int(a), int(b)) for a, b in zip(order.ravel(), turns.ravel(), strict=True)}) == 36
    # Listed otherwise, the same scans are drawn.
    back, _ = tuning.sample_order(targets[::-1], keys[::-1], 5, steps=6, batch=6, balanced=True)
    np.testing.assert_array_equal(keys[::-1][back], keys[order])
    plain, _ = tuning.sample_order(targets, keys, 5, steps=6, batch=6, balanced=False)
    assert (np.bincount(plain.ravel(), minlength=12) == 3).all()


def test_no_augmentation_is_seen_twice(tiny, monkeypatch):
    source, drawn = make_source(tiny), []
    apply = tuning.augment.apply

    def spy(x, keys, *, seed_key, epoch, view, policy):
        drawn.extend((seed_key, int(e), int(key), view) for e, key in zip(epoch, keys, strict=True))
        return apply(x, keys, seed_key=seed_key, epoch=epoch, view=view, policy=policy)

    monkeypatch.setattr(tuning.augment, "apply", spy)
    labelled = np.array([16, 17, 18])  # two lying, one upright: drawn several times a step
    task = Task(labelled, labelled // 2 % 2, np.full(3, -1), np.arange(4), 2, key=3)
    settings = make_params(tune={"steps": 4, "batch_size": 3}).protocol_settings.finetune
    tuning.run(task, settings, source)
    assert len(drawn) == len(set(drawn)) == 12


def test_balanced_drawing_does_not_change_what_a_probability_means(tiny):
    source = make_source(tiny)
    labelled = np.array([16, 17, 20, 21, 24, 25, 28, 18])  # seven lying, one upright
    task = Task(labelled, labelled // 2 % 2, np.full(8, -1), np.arange(16), 2, key=3)
    settings = make_params(
        tune={"steps": 1, "batch_size": 8, "lr": 1e-9}
    ).protocol_settings.finetune
    outcome = tuning.run(task, settings, source)
    plain = tuning.run(task, settings.model_copy(update={"balanced": False}), source)
    odds = np.log(outcome.test_prob[:, 0] / outcome.test_prob[:, 1])
    plain_odds = np.log(plain.test_prob[:, 0] / plain.test_prob[:, 1])
    np.testing.assert_allclose(odds - plain_odds, np.log(7), atol=0.02)


@pytest.mark.parametrize("n", [1, 3])
def test_a_batch_is_never_a_single_scan(tiny, n):
    source = make_source(tiny)
    labelled = np.arange(16, 16 + n)
    task = Task(labelled, labelled // 2 % 2, np.full(n, -1), np.arange(16), 2, key=3)
    outcome = tuning.run(
        task, make_params(tune={"steps": 2, "batch_size": 2}).protocol_settings.finetune, source
    )
    np.testing.assert_allclose(outcome.test_prob.sum(axis=1), 1)


def test_a_network_that_blows_up_is_flagged_and_gives_frequencies(tiny):
    source = make_source(tiny)
    labelled = np.arange(16, 36)
    task = Task(labelled, labelled // 2 % 2, np.full(20, -1), np.arange(16), 2, key=3)
    settings = make_params(tune={"steps": 3, "batch_size": 8}).protocol_settings.finetune
    make = source.make_encoder

    def broken(key):
        model = make(key)
        next(model.parameters()).data.fill_(float("nan"))
        return model

    source.make_encoder = broken
    outcome = tuning.run(task, settings, source)
    assert outcome.flags[:2] == ["diverged", "constant-predictor"]
    np.testing.assert_array_equal(outcome.test_prob, np.tile(task.frequencies(), (16, 1)))


def test_still_falling_is_told_from_converged_and_from_noise():
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.05, size=80)
    assert tuning.still_falling(np.linspace(0.7, 0.3, 80) + noise, 2)
    assert not tuning.still_falling(np.full(80, 0.69) + noise, 2)
    assert not tuning.still_falling(0.7 * np.exp(-np.arange(80) / 8), 2)
    assert not tuning.still_falling(np.linspace(0.7, 0.3, 12), 2)
    assert not tuning.still_falling(np.full(80, np.nan), 2)


def test_scratch_long_has_the_steps_of_pretraining_on_top(tiny, tmp_path):
    files = make_files(tiny, tmp_path)
    # 24 training scans in batches of 10 are 2 steps an epoch.
    finetune(
        make_params(
            "scratch-long", tune={"steps": 4, "batch_size": 4}, extra_epochs=2, extra_batch_size=10
        ),
        files,
    )
    assert {run["choices"]["steps"] for run in read_all(files)[1]} == {8}
    fixed = {"method": "scratch-long", "backbone": "test_resnet", "extra_steps": 3}
    finetune(make_params("scratch-long", tune={"steps": 4, "batch_size": 4}, settings=fixed), files)
    assert {run["choices"]["steps"] for run in read_all(files)[1]} == {7}


# -- weights from elsewhere -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_three_channels_serve_one(tiny, tmp_path, suffix):
    import timm
    import torch
    from safetensors.torch import save_file

    model = timm.create_model("test_resnet")
    file = tmp_path / f"weights.{suffix}"
    save_file(model.state_dict(), file) if suffix == "safetensors" else torch.save(
        model.state_dict(), file
    )
    folder = tmp_path / "encoder"
    fetch("test_resnet", str(file), folder)
    facts = json.loads((folder / "encoder.json").read_text())
    assert (facts["method"], facts["source_scans"], facts["weights_from"]) == (
        "imagenet",
        [],
        file.name,
    )
    files = make_files(tiny, tmp_path, encoder=folder)
    finetune(make_params("imagenet", ["linear"]), files)
    assert np.load(files.embeddings / "embeddings.npy").shape == (40, 96)


def test_weights_that_cannot_be_had_are_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    way_out = "give a local file: `imagenet_weights: {test_resnet: PATH}` in the config"
    with pytest.raises(UserError, match="the hub cannot be reached") as error:
        fetch("test_resnet", "hub", tmp_path)
    assert way_out in str(error.value)
    with pytest.raises(
        UserError, match=r"^backbone 'test_vit4': timm has no pretrained weights for it"
    ):
        fetch("test_vit4", "hub", tmp_path)
    with pytest.raises(UserError, match=r"^backbone 'resnet_18' is not a timm model"):
        fetch("resnet_18", "hub", tmp_path)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        fetch("test_resnet", str(tmp_path / "text.pth"), tmp_path)
