"""DINO against a slow transcription of its equations, and against lightly; its crops, centre and teacher."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from engine_factory import make_store

from fewscans import engine, methods, networks, optim
from fewscans.compat import ensure_torchvision
from fewscans.config.encoders import METHODS
from fewscans.methods.batch import Batch
from fewscans.methods.dino import DINO, Head, cross_entropy
from fewscans.networks.resized import fitting_side, forward_at
from fewscans.resident import Resident
from fewscans.shape import Shape

ensure_torchvision()


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(x - top) for x in row]
    return [p / sum(powers) for p in powers]


def slow(teacher, student, centre, teacher_temperature, temperature) -> float:
    """Algorithm 1 and equation 3, number by number."""
    terms = []
    for i, large in enumerate(teacher):
        for j, crop in enumerate(student):
            if i == j:
                continue
            for t, s in zip(large, crop, strict=True):
                p_t = softmax(
                    [(x - c) / teacher_temperature for x, c in zip(t, centre, strict=True)]
                )
                p_s = softmax([x / temperature for x in s])
                terms.append(-sum(a * math.log(b) for a, b in zip(p_t, p_s, strict=True)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("b", "k", "crops"), [(1, 3, 2), (5, 8, 4), (16, 32, 8)])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_loss_is_the_papers(b, k, crops, temperature):
    rng = np.random.default_rng(b)
    teacher, student = rng.normal(size=(2, b, k)), rng.normal(size=(crops, b, k))
    centre = rng.normal(size=k)
    targets = torch.softmax((torch.from_numpy(teacher) - torch.from_numpy(centre)) / 0.04, dim=2)
    made = cross_entropy(list(targets), list(torch.from_numpy(student)), temperature)
    expected = slow(teacher.tolist(), student.tolist(), centre.tolist(), 0.04, temperature)
    assert float(made) == pytest.approx(expected, abs=1e-10, rel=1e-10)


def test_loss_and_centre_are_lightlys():
    from lightly.loss import DINOLoss

    torch.manual_seed(0)
    theirs = DINOLoss(
        output_dim=16, teacher_temp=0.05, warmup_teacher_temp=0.05, student_temp=0.1, center_momentum=0.9
    )  # fmt: skip
    centre = torch.zeros(1, 16)
    for _ in range(3):
        teacher, student = torch.randn(2, 6, 16), torch.randn(5, 6, 16)
        targets = torch.softmax((teacher - centre) / 0.05, dim=2)
        ours = cross_entropy(list(targets), list(student), 0.1)
        assert float(ours) == pytest.approx(
            float(theirs(list(teacher), list(student), epoch=1)), abs=1e-6, rel=1e-6
        )
        centre = centre.lerp(teacher.flatten(0, 1).mean(dim=0, keepdim=True), 0.1)


SHAPE = Shape(32)


def make(backbone="test_resnet", shape=SHAPE, **changes) -> DINO:
    settings = METHODS["dino"].model_validate({"backbone": backbone, "batch_size": 4, **changes})
    encoder = networks.make_encoder(backbone, shape, patch_size=None, init_key=1)
    torch.manual_seed(0)
    return methods.load("dino")(encoder, settings, shape)


def batch(n: int = 4) -> Batch:
    torch.manual_seed(1)
    return Batch(torch.rand(n, 1, 32, 32), np.arange(1, n + 1, dtype=np.uint64), 0, 3)


def test_crops_have_their_sides_and_areas():
    method = make(local_crops=3)
    views = method.views(batch())
    assert [view.shape[-1] for view in views] == [32, 32, 16, 16, 16]
    assert method.policy.crop_area == (0.4, 1.0)
    assert method.local_policy.crop_area == (0.05, 0.4)
    assert not torch.equal(views[2], views[3])
    alone = make(local_crops=0)
    assert alone.loss(*alone.views(batch()))[0].isfinite()


@pytest.mark.parametrize(
    ("backbone", "shape"),
    [("test_vit", Shape(32)), ("monai-test-vit", Shape(16, 1, 3)), ("test_resnet", Shape(32)),
     ("monai-test-unet", Shape(32))],
)  # fmt: skip
def test_at_its_own_side_a_network_is_itself_and_at_others_it_has_features(backbone, shape):
    model = networks.make_encoder(backbone, shape, patch_size=4, init_key=1).eval()
    before = getattr(model, "dynamic_img_size", None)
    x = torch.rand(2, 1, *[shape.size] * shape.ndim)
    torch.testing.assert_close(forward_at(model, x), model(x), rtol=1e-5, atol=1e-6)
    side = fitting_side(model, shape.size // 2)
    assert side % 4 == 0
    small = forward_at(model.train(), x[(..., *[slice(side)] * shape.ndim)])
    assert small.shape == model(x).shape
    assert small.isfinite().all()
    assert getattr(model, "dynamic_img_size", None) == before


def test_outputs_are_cosines():
    logits = Head(8, 16, 4, 12)(torch.randn(5, 8))
    assert logits.shape == (5, 12)
    assert logits.abs().max() <= 1 + 1e-6


def test_centre_teacher_and_temperature_follow_and_belong_to_the_state():
    method = optim.place(make(momentum=0.5), torch.device("cpu")).train()
    method.loss(*method.views(batch()))
    with torch.no_grad():
        method.head.prototypes.add_(1.0)
    before = method.teacher[1].prototypes.clone()
    method.after_step(1, 10)
    torch.testing.assert_close(method.centre, 0.1 * method.latest)
    assert float(method.teacher_temperature) == pytest.approx(0.02 + 0.02 / 3)
    moved = method.teacher[1].prototypes - before
    assert 0.4 < float(moved.mean()) < 0.5  # half of the way, a little less by the cosine
    state = method.state_dict()
    assert {"centre", "teacher_temperature", "teacher.1.prototypes"} <= set(state)
    assert "latest" not in state


def test_prototypes_follow_the_batch_unless_asked_for():
    assert make().resolved()["prototypes"] == 16
    assert make(prototypes=10).resolved()["prototypes"] == 10


def test_prototypes_stand_still_for_an_epoch_and_a_tenth_of_the_steps_at_most():
    method = make().train()
    optimizer = optim.make_optimizer(method, 1e-2, 0.04)
    method.begin(n_scans=8, batch_size=4, n_steps=100)
    moved = []
    for step in range(1, 5):
        before = method.head.prototypes.detach().clone()
        engine.train_step(method, optimizer, method.views(batch()))
        method.after_step(step, 100)
        directions = [
            torch.nn.functional.normalize(w, dim=1) for w in (before, method.head.prototypes)
        ]
        moved.append(not torch.allclose(*directions, atol=1e-6))
    assert moved == [False, False, True, True]
    assert "still" in method.state_dict()
    method.begin(n_scans=800, batch_size=4, n_steps=100)
    assert int(method.still) == 10


def test_weight_decay_rises_tenfold_in_half_a_cosine():
    """Section 3.2: from 0.04 to 0.4."""
    kind = DINO
    risen = [
        optim.weight_decay_at(step, 100, kind.weight_decay, kind.weight_decay_growth)
        for step in (0, 50, 100)
    ]
    assert risen == pytest.approx([0.04, 0.22, 0.4])


def test_the_loop_raises_weight_decay(tmp_path):
    store = make_store(tmp_path / "store", n=8, size=32)
    schedule = engine.Schedule(5, 4, 2, 1e-3, 0.04, 0.1, None, seed_key=1, precision="fp32")
    training = engine.Training(make(), Resident(store, store.scans), schedule)
    training.run()
    last = optim.weight_decay_at(9, 10, 0.04, 10)
    found = {(g["decayed"], g["weight_decay"]) for g in training.optimizer.param_groups}
    assert found == {(True, last), (False, 0.0)}
    assert 0.38 < last < 0.4
