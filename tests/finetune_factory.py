"""Settings, files and encoders for the packed stage on a tiny data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from labelled_factory import scan_key

from fewscans import networks
from fewscans.config.stages import FinetuneParams
from fewscans.contracts import read_metadata, read_table
from fewscans.finetune import Files
from fewscans.protocols.source import Source
from fewscans.shape import Shape
from fewscans.store import Store

ROOT = Path(__file__).parent.parent
TUNE = {"steps": 8, "batch_size": 8, "inner_folds": 2}


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


def make_encoder(folder):
    """A folder as pretrain leaves it, with the fold's training scans as sources."""
    model = networks.make_encoder("test_resnet", Shape(16), patch_size=None, init_key=7)
    networks.save_encoder(folder / "encoder.safetensors", model)
    write_meta(folder, source_scans=[scan_key(i + 1) for i in range(16, 40)])
    return folder


def write_meta(folder, **more):
    kwargs = networks.network_kwargs("test_resnet", Shape(16))
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


def open_store(tiny):
    return Store.open(tiny["store"])


def make_source(tiny, method="scratch", folder=None):
    store = open_store(tiny)
    return Source(make_params(method), store, store.scans, np.arange(16, 40), folder)


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
