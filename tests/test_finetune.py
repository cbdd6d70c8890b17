"""The packed stage: what is written and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from finetune_factory import (
    ROOT,
    make_encoder,
    make_files,
    make_params,
    open_store,
    read_all,
    run_python,
    write_meta,
)
from labelled_factory import make_tiny, scan_key

from fewscans import networks
from fewscans.contracts import read_metadata, read_table, write_table
from fewscans.errors import UserError
from fewscans.finetune import finetune
from fewscans.protocols.source import Source
from fewscans.shape import Shape


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    files = make_files(tiny, tmp_path_factory.mktemp("undisturbed"))
    assert finetune(make_params(), files) == {"runs": 3, "from_cache": 0}
    return files


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder"))


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
    store = open_store(tiny)
    source.store, source.scans = store, list(rows["scan"])
    np.testing.assert_allclose(half, source.features, rtol=2e-3, atol=1e-4)


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
    model, _ = networks.load_encoder(encoder, Shape(16))
    next(model.parameters()).data.fill_(float("nan"))
    networks.save_encoder(tmp_path / "encoder.safetensors", model)
    write_meta(tmp_path, source_scans=[])
    said = refused(make_params("simclr", ["linear"]), make_files(tiny, tmp_path, encoder=tmp_path))
    assert said.startswith(
        "simclr: its embeddings are not finite numbers. Its pretraining diverged"
    )


def test_scratch_long_has_the_steps_of_pretraining_on_top(tiny, tmp_path):
    files = make_files(tiny, tmp_path)
    # 24 training scans in batches of 10 are 2 steps an epoch.
    finetune(
        make_params(
            "scratch-long",
            tune={"steps": 4, "batch_size": 4},
            extra=[{"epochs": 2, "batch_size": 10}, {"steps": 3, "batch_size": 10}],
        ),
        files,
    )
    assert {run["choices"]["steps"] for run in read_all(files)[1]} == {8}
    fixed = {"method": "scratch-long", "backbone": "test_resnet", "extra_steps": 3}
    finetune(make_params("scratch-long", tune={"steps": 4, "batch_size": 4}, settings=fixed), files)
    assert {run["choices"]["steps"] for run in read_all(files)[1]} == {7}
