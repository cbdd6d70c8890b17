"""Optimizers, groups of parameters, the average of weights, fp16: against hand-made ones, and gone on with exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_factory import make_params
from pretrain_factory import Place, meta
from torch import nn

from fewscans import engine, networks, optim
from fewscans.average import Average
from fewscans.checkpoint import Checkpoint
from fewscans.config.models import FinetuneSettings
from fewscans.groups import layer_factors, layers
from fewscans.lars import LARS
from fewscans.shape import Shape


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def make(backbone: str, *, size: int = 32, ndim: int = 2) -> nn.Module:
    shape = Shape(size, 1, ndim)
    return networks.make_encoder(backbone, shape, patch_size=None, init_key=1)


# -- LARS ------------------------------------------------------------------------------------------


def slow_lars(w, gradients, lr, momentum, decay, adapt):
    """You et al. 2017, algorithm 1, as in SimCLR's code: one number after the other."""
    w, v = [float(x) for x in w], [0.0] * len(w)
    for gradient in gradients:
        g = [float(a) + decay * b for a, b in zip(gradient, w, strict=True)]
        w_norm, g_norm = sum(x * x for x in w) ** 0.5, sum(x * x for x in g) ** 0.5
        trust = 0.001 * w_norm / g_norm if adapt and w_norm > 0 and g_norm > 0 else 1.0
        for i in range(len(w)):
            v[i] = momentum * v[i] + lr * trust * g[i]
            w[i] = w[i] - v[i]
    return w


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.0), (0.9, 0.1), (0.0, 1e-3)])
def test_lars_is_the_papers(momentum, decay):
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(n, generator=generator, dtype=torch.float64) for n in (6, 3, 4)]
    start[2].zero_()  # a layer of zeros has no size to go by
    gradients = [
        [torch.randn(len(w), generator=generator, dtype=torch.float64) for w in start]
        for _ in range(4)
    ]
    gradients[1][0].zero_()
    weights = [nn.Parameter(w.clone()) for w in start]
    groups = [
        {"params": [weights[0], weights[2]], "weight_decay": decay, "decayed": True},
        {"params": [weights[1]], "weight_decay": 0.0, "decayed": False},
    ]
    optimizer = LARS(groups, lr=0.3, momentum=momentum)
    for some in gradients:
        for w, g in zip(weights, some, strict=True):
            w.grad = g.clone()
        optimizer.step()
    for i, w in enumerate(weights):
        own = [some[i] for some in gradients]
        adapt = i != 1
        expected = slow_lars(start[i], own, 0.3, momentum, decay if adapt else 0.0, adapt)
        np.testing.assert_allclose(w.detach().numpy(), expected, atol=1e-12)


def test_lars_spares_biases_norms_and_tokens():
    groups = optim.make_optimizer(make("test_vit"), 0.1, 1e-6, kind="lars").param_groups
    assert [group["decayed"] for group in groups] == [True, False]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert any(p.ndim == 3 for p in groups[1]["params"])


@pytest.mark.parametrize(
    ("kind", "lr", "decay"),
    [("adamw", 2e-3, 0.05), ("sgd", 0.1, 1e-4), ("lars", 0.075 * 128**0.5, 1e-6)],
)
def test_rates_follow_from_optimizer_and_batch(kind, lr, decay):
    assert optim.rates(kind, 128, base_lr=4e-3, weight_decay=0.05) == (pytest.approx(lr), decay)


def test_rates_of_fine_tuning_follow_too_unless_said():
    assert FinetuneSettings().lr == 1e-3
    assert FinetuneSettings(optimizer="sgd").lr == 0.2 * 32 / 256
    made = FinetuneSettings(optimizer="lars", batch_size=64, weight_decay=0.1)
    assert (made.lr, made.weight_decay) == (0.075 * 8, 0.1)
    assert FinetuneSettings.model_validate(made.model_dump()) == made


# -- groups ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
def test_decay_and_layers_are_timms(backbone):
    from timm.optim import param_groups_layer_decay

    model = make(backbone)
    names = {id(p): name for name, p in model.named_parameters()}
    spared = getattr(model, "no_weight_decay", set)()
    theirs = param_groups_layer_decay(model, 0.1, spared, layer_decay=0.7)
    # There the encoder's last layer has the whole rate; here what comes behind it has.
    expected = {
        names[id(p)]: (0.7 * group["lr_scale"], group["weight_decay"])
        for group in theirs
        for p in group["params"]
    }
    ours = optim.make_optimizer(model, 1.0, 0.1, factors=layer_factors(model, 0.7))
    optim.set_lr(ours, 2.0)
    found = {
        names[id(p)]: (group["lr"] / 2, group["weight_decay"])
        for group in ours.param_groups
        for p in group["params"]
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("monai-test-vit", {
            "patch_embedding.position_embeddings": 0, "patch_embedding.patch_embeddings.weight": 0,
            "blocks.0.mlp.linear1.weight": 1, "blocks.3.norm1.bias": 4, "norm.weight": 4,
        }),
        ("monai-test-resnet", {
            "conv1.weight": 0, "bn1.bias": 0, "layer1.0.conv1.weight": 1, "layer4.0.bn2.weight": 4,
        }),
        ("monai-test-unet", {
            "conv_0.conv_1.adn.N.weight": 0, "down_1.convs.conv_0.conv.weight": 1,
            "down_4.convs.conv_1.conv.bias": 4,
        }),
    ],
)  # fmt: skip
def test_layers_of_monais_networks(backbone, expected):
    model = make(backbone, ndim=3)
    found = layers(model)
    assert {name: found[name] for name in expected} == expected
    assert found.keys() == dict(model.named_parameters()).keys()
    factor = layer_factors(model, 0.5)
    by_name = dict(model.named_parameters())
    for name, layer in expected.items():
        assert factor[id(by_name[name])] == 0.5 ** (5 - layer)


def test_position_embeddings_of_monai_do_not_decay():
    model = make("monai-test-vit", ndim=3)
    free = optim.make_optimizer(model, 1e-3, 0.1).param_groups[1]
    assert any(p is model.patch_embedding.position_embeddings for p in free["params"])


# -- average, fp16 ---------------------------------------------------------------------------------


def test_average_begins_short_and_can_be_put_in_place():
    module = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    weight, mean = module[0].weight, module[1].running_mean
    average = Average(module, 0.5)
    expected = [weight.detach().clone().double(), mean.clone().double()]
    for step, value in enumerate([1.0, -2.0, 4.0, 0.5, 3.0, 3.0, 3.0, 3.0, 7.0, 1.0], start=1):
        weight.data.fill_(value)
        mean.fill_(2 * value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))  # half from step 8 on
        expected = [
            decay * e + (1 - decay) * v for e, v in zip(expected, (value, 2 * value), strict=True)
        ]
    with average.applied():
        np.testing.assert_allclose(weight.detach(), expected[0], rtol=1e-6)
        np.testing.assert_allclose(mean, expected[1], rtol=1e-6)
    assert weight[0, 0].item() == 1.0


def test_the_kept_encoder_is_the_average(place):
    job = place.job(make_params("simclr", epochs=3, ema=0.9))
    training = engine.Training(job.make_method(), job.resident, job.schedule)
    follow, seen = training.method.after_step, []

    def after_step(step, n):
        follow(step, n)
        seen.append({k: v.clone() for k, v in training.method.encoder.state_dict().items()})

    expected = {k: v.clone() for k, v in training.method.encoder.state_dict().items()}
    training.method.after_step = after_step
    training.run()
    assert len(seen) == 6
    for step, state in enumerate(seen, start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in state.items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in training.method.encoder.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
            assert not torch.equal(value, seen[-1][name]), name


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_steps_that_overflow_are_left_out_and_clipping_is_of_true_gradients(kind):
    def train(scaler, bad):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        optimizer = optim.make_optimizer(net, 0.1, 0.01, kind=kind)
        for value in (1.0, bad, 2.0):
            optimizer.zero_grad()
            loss = (net(torch.full((2, 3), value)) ** 2).sum()
            (loss if scaler is None else scaler.scale(loss)).backward()
            optim.step(optimizer, net, 0.5, scaler)
        return net

    device = torch.device("cpu")
    scaler = optim.make_scaler(device, "fp16")
    scaled, plain = train(scaler, 3.0), train(None, 3.0)
    torch.testing.assert_close(scaled.weight, plain.weight)
    assert int(scaler.skipped) == 0
    scaler = optim.make_scaler(device, "fp16")
    begun = scaler.inner.get_scale()
    net = train(scaler, float("inf"))
    assert torch.isfinite(net.weight).all()
    assert int(scaler.skipped) == 1
    assert scaler.inner.get_scale() == begun / 2
    assert optim.make_scaler(device, "bf16") is None


def test_training_in_fp16_says_what_it_left_out(place, monkeypatch):
    from fewscans.methods.mae import MAE

    loss, calls = MAE.loss, []

    def overflowing(self, *views):
        value, gauges = loss(self, *views)
        calls.append(value.dtype)
        # In the backward pass alone, as where a scaled gradient has no place in fp16.
        return value + (value * 1e37 - (value * 1e37).detach() if len(calls) == 2 else 0), gauges

    monkeypatch.setattr(MAE, "loss", overflowing)
    params = make_params("mae", epochs=2)
    compute = params.compute.model_copy(update={"precision": "fp16"})
    out, facts = place.run(params.model_copy(update={"compute": compute}))
    assert facts["flags"] == []
    assert meta(out)["precision"] == "fp16"
    assert meta(out)["skipped_steps"] == 1
    assert len(calls) == 4


# -- going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "settings", "precision"),
    [
        ("simclr", {"optimizer": "lars", "ema": 0.9}, "fp32"),
        ("byol", {"optimizer": "sgd", "accumulate": 2, "ema": 0.9}, "fp32"),
        ("mocov2", {"accumulate": 2, "clip_grad_norm": 0.1}, "fp32"),
        ("mae", {"ema": 0.9, "accumulate": 2}, "fp16"),
    ],
)
def test_goes_on_with_the_same_bytes(place, method, settings, precision):
    job = place.job(make_params(method, epochs=3, **settings))
    schedule = replace(job.schedule, precision=precision)

    def begin(save=lambda state: None) -> engine.Training:
        made = engine.Training(job.make_method(), job.resident, schedule, save=save)
        if made.scaler is not None:  # the first steps overflow: the scale changes on the way
            made.scaler.inner = torch.amp.GradScaler("cpu", init_scale=2.0**40)
        return made

    reference, saved = begin(), []
    reference.run()
    first = begin(saved.append)
    first.should_stop = lambda: first.step == 3
    with pytest.raises(engine.StoppedError):
        first.run()
    store = Checkpoint(place.folder / "state")
    store.save({"training": saved[-1]})
    second = begin()
    second.load(store.load()["training"])
    second.run()
    for name, value in reference.method.state_dict().items():
        assert torch.equal(second.method.state_dict()[name], value), name
    if reference.scaler is not None:
        assert int(reference.scaler.skipped) == int(second.scaler.skipped) > 0
        assert reference.scaler.state_dict() == second.scaler.state_dict()
