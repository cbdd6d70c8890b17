"""torchvision beside a CPU-only torch."""

import subprocess
import sys

import pytest
import torch

from fewscans import compat


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=False)


@pytest.mark.skipif(torch.version.cuda is not None, reason="torchvision loads its own operators")
def test_torchvision_and_timm_import_with_it_and_torchvision_alone_does_not():
    assert "torchvision::nms" in run("import torchvision").stderr
    done = run(
        "from fewscans.compat import ensure_torchvision as e; e(); e(); import timm, torchvision.transforms;"
        "print(timm.create_model('test_resnet').num_features)"
    )
    assert done.stdout.strip() == "96", done.stderr


def test_nothing_is_defined_beside_a_cuda_build(monkeypatch):
    monkeypatch.setattr(compat, "_LIBRARY", None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    compat.ensure_torchvision()
    assert compat._LIBRARY is None
