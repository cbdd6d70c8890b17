"""A method of another package, added without a change here: found everywhere, trained as ours are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
import workflows
from engine_factory import make_folds, make_params, make_store

ENTRY = "[fewscans.methods]\ntoy = fs_toy.settings:Toy\n"
SETTINGS = '''
from typing import ClassVar, Literal
from pydantic import Field
from fewscans.config.encoders import PretrainSettings

class Toy(PretrainSettings):
    """Toy: guess how bright a scan is."""

    method: Literal["toy"] = "toy"
    title: ClassVar[str] = "Toy method"
    module: ClassVar[str] = "fs_toy.method"
    weight: float = Field(default=1.0, gt=0)
    """Of the only term there is."""
'''
METHOD = """
import torch
from torch import nn
from fewscans.methods.base import Method
from fewscans.networks import embedding_dim

class ToyMethod(Method):
    base_lr = 1e-3
    weight_decay = 0.0

    def __init__(self, encoder, settings, shape):
        super().__init__(encoder, settings, shape)
        self.guess = nn.Linear(embedding_dim(encoder), 1)

    def views(self, batch):
        return (batch.augmented(0, self.policy),)

    def loss(self, *views):
        h = self.encoder(views[0])
        error = self.guess(h)[:, 0] - views[0].flatten(1).mean(dim=1)
        return self.settings.weight * error.square().mean(), {"embedding": h.detach()}

METHOD = ToyMethod
"""


def install(folder, settings=SETTINGS, entry=ENTRY):
    """What pip would leave in `folder`; the environment in which it is found."""
    for name, text in {
        "fs_toy/__init__.py": "",
        "fs_toy/settings.py": settings,
        "fs_toy/method.py": METHOD,
        "fs_toy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: fs-toy\nVersion: 1.0\n",
        "fs_toy-1.0.dist-info/entry_points.txt": entry,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    return install(tmp_path_factory.mktemp("site"))


def python(code, env):
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_schema_and_reference_have_it(env):
    assert "Toy: guess how bright a scan is. [fs_toy]" in python(
        "from fewscans.__main__ import main; main(['methods'])", env
    )
    code = (
        "import json; from fewscans.config import reference as r, schema as s;"
        "print(json.dumps([s.schema(), r.encoders_reference()]))"
    )
    schema, reference = json.loads(python(code, env))
    assert "weight" in schema["$defs"]["Toy"]["properties"]
    assert "### Toy\n\nToy: guess how bright a scan is." in reference
    assert "Of the only term there is." in reference


def test_the_workflow_plans_it_and_says_what_is_wrong_with_its_settings(env, tmp_path, monkeypatch):
    site = {**workflows.environment(), "PYTHONPATH": env["PYTHONPATH"].partition(os.pathsep)[0]}
    monkeypatch.setattr(workflows, "environment", lambda: site)
    clone = workflows.make_clone(tmp_path / "lab")
    toy = {**workflows.CONFIG["encoders"]["simclr"], "method": "toy", "weight": 0.5}
    clone.config(encoders={"mine": toy})
    planned = clone.run("-n")
    assert "rule pretrain" in planned.stdout
    assert "mine" in planned.stdout
    clone.config(encoders={"mine": {**toy, "weight": -1, "weightt": 1}})
    refused = clone.run("-n", check=False).stdout
    assert "must be above 0 (given: -1)" in refused
    assert "Did you mean 'weight'?" in refused


def test_it_is_trained_and_its_code_counts(env, tmp_path):
    store = make_store(tmp_path / "store")
    folds = make_folds(tmp_path / "folds.parquet", store.scans)
    params = make_params("simclr").model_dump(mode="json")
    params["settings"] = {"method": "toy", "backbone": "test_resnet", "epochs": 2, "batch_size": 4}

    def train(out, env):
        command = [sys.executable, "scripts/pretrain.py", "--params", json.dumps(params)]
        command += ["--store", str(tmp_path / "store"), "--folds", str(folds), "--out", str(out)]
        command += [
            *("--cache", str(tmp_path / "cache")),
            *("--checkpoints", str(tmp_path / "checkpoints")),
        ]
        subprocess.run(command, env=env, check=True, capture_output=True)
        return json.loads((out / "encoder.json").read_text())

    first = train(tmp_path / "a", env)
    assert (first["method"], first["steps"]) == ("toy", 4)
    changed = install(tmp_path / "site")
    method = tmp_path / "site/fs_toy/method.py"
    method.write_text(method.read_text().replace(".square().mean()", ".abs().mean()"))
    assert train(tmp_path / "b", changed)["digest"] != first["digest"]


@pytest.mark.parametrize(
    ("settings", "entry", "said"),
    [
        ("import no_such_package", ENTRY, "cannot be imported: ModuleNotFoundError"),
        ("Toy = 3", ENTRY, "is no class derived from"),
        (SETTINGS.replace("    title", "    other"), ENTRY, "lacks title"),
        (SETTINGS, ENTRY.replace("toy =", "simclr ="), 'needs `method: Literal["simclr"]'),
        (SETTINGS.replace('"toy"', '"mae"'), ENTRY.replace("toy =", "mae ="), "already"),
    ],
)
def test_a_faulty_one_is_told_who_asks_for_it_and_hinders_nobody(tmp_path, settings, entry, said):
    env = install(tmp_path, settings, entry)
    code = "from fewscans.__main__ import main; main(['methods'])"
    listed = python(code, env)
    assert said in listed
    assert "fs-toy: " in listed
    assert "SimCLR" in listed
