"""Modality, ranges of augmentation and mixing, from the config to what a network is shown."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
import torch
from engine_factory import make_params
from finetune_factory import TUNE, make_source
from finetune_factory import make_params as make_tuning
from labelled_factory import make_tiny
from pydantic import ValidationError
from workflows import CONFIG, make_clone

from fewscans import augment, methods, networks
from fewscans.config.augment import AugmentSettings, Modality, of_modality
from fewscans.config.models import FinetuneSettings
from fewscans.protocols import finetune as tuning
from fewscans.protocols.task import Task
from fewscans.shape import Shape


def method_of(name: str, **settings):
    given = make_params(name, size=32, **settings).settings
    encoder = networks.make_encoder(given.backbone, Shape(32), patch_size=None, init_key=1)
    return methods.load(name)(encoder, given, Shape(32))


def test_settings_are_the_policys_ranges():
    assert set(AugmentSettings.model_fields) == {one.name for one in fields(augment.Policy)}
    assert set(get_args(Modality)) == set(get_args(augment.Modality))
    # Each can be given, and is then what the policy has.
    every = {
        name: (0.5, 0.9) if name.endswith("area") else "mean" if name == "erase_with" else 1.0
        for name in AugmentSettings.model_fields
    }
    made = augment.policy(0.3, "mae", "xray", AugmentSettings.model_validate(every).given)
    assert {one.name: getattr(made, one.name) for one in fields(made)} == every


def test_a_method_trains_by_its_modality_and_ranges():
    plain, mirrored = method_of("simclr"), method_of("simclr", modality="xray")
    assert (plain.policy.horizontal_flip, mirrored.policy.horizontal_flip) == (0.5, 0.0)
    asked = method_of("simclr", strength=0.0, augment={"elastic": 0.05, "crop_area": [0.2, 0.3]})
    assert asked.policy.elastic == 0.05
    assert asked.policy.crop_area == (0.2, 0.3)
    assert asked.policy.noise_sd == 0
    assert method_of("simclr", modality="ct").policy.window > 0


def test_what_is_said_of_an_encoder_goes_before_its_data_set():
    open_, said = (make_params(**x).settings for x in ({}, {"modality": "mr"}))
    assert of_modality(open_, "ct").modality == "ct"
    assert of_modality(said, "ct").modality == "mr"
    tune = FinetuneSettings()
    assert of_modality(tune, "ultrasound").modality == "ultrasound"
    scratch = make_tuning(encoder="scratch").settings
    assert of_modality(scratch, "ct") is scratch


def test_impossible_ranges_are_told():
    for given, said in (
        ({"crop_area": [0.9, 0.3]}, r"crop_area: \[0.9, 0.3\] has its largest first"),
        ({"elastik": 0.1}, "elastik"),
        ({"horizontal_flip": 2}, "less than or equal to 1"),
        ({"crop_area": [0, 1]}, "greater than 0"),
    ):
        with pytest.raises(ValidationError, match=said):
            AugmentSettings.model_validate(given)


def test_the_workflow_hands_the_data_sets_modality_on(tmp_path):
    clone = make_clone(tmp_path / "clone")
    simclr = {**CONFIG["encoders"]["simclr"], "augment": {"shear": 0.1}}
    clone.config(
        datasets={"tiny": {**CONFIG["datasets"]["tiny"], "modality": "ct"}},
        encoders={"simclr": simclr},
    )
    done = clone.run("-n", "-p").stdout
    assert '"modality": "ct"' in done
    assert '"shear": 0.1' in done
    trained = [line for line in done.splitlines() if "pretrain.py" in line or '"steps": 4' in line]
    assert len(trained) >= 4
    assert all('"modality": "ct"' in line for line in trained)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_fine_tuning_learns_from_mixtures(tiny, mix, monkeypatch):
    source = make_source(tiny)
    labelled = np.arange(16, 40)
    task = Task(labelled, labelled // 2 % 2, np.full(24, -1), np.arange(16), 2, key=11)
    seen = []
    function = tuning.MIX[mix]
    monkeypatch.setitem(
        tuning.MIX, mix, lambda x, *a, **k: seen.append(function(x, *a, **k)) or seen[-1]
    )
    settings = make_tuning(tune={**TUNE, "steps": 6, "mix": mix, "mix_alpha": 0.8})
    made = [tuning.run(task, settings.protocol_settings.finetune, source) for _ in range(2)]
    np.testing.assert_array_equal(made[0].test_prob, made[1].test_prob)
    assert len(seen) == 12
    shares = torch.cat([one.share for one in seen])
    assert shares.min() < 0.9
    assert (shares >= 0.45).all()
    plain = make_tuning(tune={**TUNE, "steps": 6})
    other = tuning.run(task, plain.protocol_settings.finetune, source)
    assert not np.allclose(made[0].test_prob, other.test_prob)


def test_the_loss_of_a_mixture_is_that_of_both():
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    classes, partner = torch.tensor([0, 2, 1, 1]), torch.tensor([1, 2, 3, 0])
    share = torch.tensor([0.5, 0.7, 1.0, 0.9], dtype=torch.float64)
    mixed = augment.Mixed(torch.zeros(4), partner, share)
    log_p = logits.log_softmax(dim=1)
    expected = 0.0
    for i in range(4):
        own, other = log_p[i, classes[i]], log_p[i, classes[partner[i]]]
        expected -= float(share[i] * own + (1 - share[i]) * other) / 4
    assert float(tuning.mixed_loss(logits, classes, mixed)) == pytest.approx(expected, abs=1e-12)
