"""Weights fetched ahead of a run: where the workflow looks for them, and all that cannot be had at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workflows import CONFIG, Clone, environment, make_clone


@pytest.fixture
def clone(tmp_path) -> Clone:
    return make_clone(tmp_path / "clone")


def fetch(clone: Clone, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fewscans", "fetch"],
        cwd=clone.folder,
        env={
            **environment(),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(clone.folder / "empty"),
            **more,
        },
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.mark.slow
def test_weights_lie_where_jobs_read_them_and_are_not_made_again(clone):
    from fewscans.compat import ensure_torchvision

    ensure_torchvision()
    import timm
    import torch

    file = clone.folder / "given.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), file)
    clone.config(baselines=["scratch", "imagenet"], imagenet_weights={"test_resnet": "given.pth"})
    assert clone.to_run()["weights"] == 1
    done = fetch(clone)
    assert done.returncode == 0, done.stderr
    (meta,) = (clone.folder / "work/encoders").rglob("encoder.json")
    assert json.loads(meta.read_text())["weights_from"] == "given.pth"
    assert (meta.parent / "encoder.safetensors").is_file()
    assert str(meta.parent.relative_to(clone.folder)) in done.stdout
    assert "weights" not in clone.to_run()
    before = meta.stat().st_mtime_ns
    assert "there already" in fetch(clone).stdout
    assert meta.stat().st_mtime_ns == before


@pytest.mark.slow
def test_everything_that_cannot_be_had_is_said_at_once(clone):
    encoders = {
        "vit": {"method": "imagenet", "backbone": "test_vit"},
        "net": {"method": "imagenet", "backbone": "test_resnet", "weights": "nowhere.pth"},
    }
    clone.config(encoders=encoders, baselines=["scratch"])
    done = fetch(clone)
    assert done.returncode == 2
    assert "2 problems" in done.stderr
    assert "imagenet_weights: {test_vit: PATH}" in done.stderr
    assert "nowhere.pth" in done.stderr
    assert not (clone.folder / "work").exists()


def test_a_config_without_such_encoders_needs_nothing(tmp_path, capsys, monkeypatch):
    from fewscans.__main__ import main

    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["fetch", "--configfile", "mine.yaml"]) == 0
    assert "nothing to get" in capsys.readouterr().out
    assert main(["fetch"]) == 2
    assert "config/config.yaml: no such file" in capsys.readouterr().err
