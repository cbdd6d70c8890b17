"""SparK and Models Genesis: what a network may see, what is distorted, and what is handed on."""

from __future__ import annotations

import copy
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_factory import make_folds, make_params, make_store
from method_factory import batch, make
from safetensors.torch import load_file
from torch import nn

from fewscans import engine, networks, optim
from fewscans.errors import UserError
from fewscans.methods import distortions
from fewscans.methods.base import Batch
from fewscans.methods.masks import enlarge
from fewscans.networks import monai_nets
from fewscans.networks.maps import map_shapes, pyramid
from fewscans.networks.sparse import Seen, seeing_only
from fewscans.pretrain import pretrain
from fewscans.shape import Shape
from fewscans.start import Start

NETS = [
    ("test_resnet", Shape(32)), ("test_resnet", Shape(48)), ("test_convnext", Shape(64)),
    ("monai-test-resnet", Shape(16, 1, 3)), ("monai-test-unet", Shape(32, 1, 3)), ("monai-test-unet", Shape(32)),
]  # fmt: skip


# SparK


@pytest.mark.parametrize(("backbone", "shape"), NETS)
@pytest.mark.parametrize("training", [True, False])
def test_no_hidden_pixel_reaches_the_network(backbone, shape, training):
    """Also not by the statistics of norms, nor by the running ones that they leave."""
    one, other = (make("spark", shape, backbone).train(training) for _ in range(2))
    x, masked = one.views(batch(shape))
    hidden = enlarge(masked, one.mask_patch)
    with torch.no_grad():
        first = one.restored(x, masked)
        second = other.restored(torch.where(hidden, torch.rand_like(x), x), masked)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )
    # And visible ones do.
    with torch.no_grad():
        third = one.restored(torch.where(hidden, x, torch.rand_like(x)), masked)
    assert not torch.allclose(first[0], third[0])


@pytest.mark.parametrize(("backbone", "shape"), NETS)
@pytest.mark.parametrize("training", [True, False])
def test_where_all_is_visible_it_is_the_plain_network(backbone, shape, training):
    model = networks.make_encoder(backbone, shape, patch_size=None, init_key=1).train(training)
    again = networks.make_encoder(backbone, shape, patch_size=None, init_key=1).train(training)
    x = batch(shape).x
    before = set(model.state_dict())
    with torch.no_grad(), seeing_only(model, Seen(torch.ones_like(x[:, :1], dtype=torch.bool))):
        found = pyramid(model, x)
    with torch.no_grad():
        expected = pyramid(again, x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.state_dict(), again.state_dict(), atol=1e-5, rtol=1e-5)
    # Afterwards the network is what it was, with no hook left.
    assert set(model.state_dict()) == before
    assert not any(m._forward_pre_hooks or "forward" in vars(m) for m in model.modules())


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm])
def test_norms_count_visible_places_alone(kind):
    norm = nn.GroupNorm(2, 4) if kind is nn.GroupNorm else kind(4, affine=True)
    nn.init.uniform_(norm.weight)
    norm = norm.double()
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    visible = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.4
    with seeing_only(norm, Seen(visible)):
        found = norm(x)
    for b, c in itertools.product(range(3), range(4)):
        if kind is nn.BatchNorm2d:
            seen = torch.cat([x[i, c][visible[i, 0]] for i in range(3)])
        elif kind is nn.InstanceNorm2d:
            seen = x[b, c][visible[b, 0]]
        else:
            seen = torch.cat([x[b, i][visible[b, 0]] for i in range(c // 2 * 2, c // 2 * 2 + 2)])
        expected = (x[b, c] - seen.mean()) / (seen.var(correction=0) + norm.eps).sqrt()
        expected = (expected * norm.weight[c] + norm.bias[c]) * visible[b, 0]
        torch.testing.assert_close(found[b, c], expected.detach(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("ratio", [0.3, 0.6])
@pytest.mark.parametrize("shape", [Shape(32), Shape(16, 1, 3), Shape(32, 3)])
def test_spark_loss_is_that_of_hidden_squares(ratio, shape):
    """Squares are normalised by their own mean and (unbiased) variance; mean of squares' mean squared errors."""
    backbone = "test_resnet" if shape.ndim == 2 else "monai-test-resnet"
    method = make("spark", shape, backbone, mask_ratio=ratio).double()
    x, masked = method.views(batch(shape, 3))
    x = x.double()
    with torch.no_grad():
        found = float(method.loss(x, masked)[0])
        predicted = method.restored(x, masked)[0]
    side, total, n = method.mask_patch, 0.0, 0
    for b in range(3):
        for cell in np.ndindex(*masked.shape[1:]):
            if not masked[(b, *cell)]:
                continue
            box = (b, slice(None), *[slice(k * side, (k + 1) * side) for k in cell])
            target, guess = x[box].flatten().tolist(), predicted[box].flatten().tolist()
            mean = sum(target) / len(target)
            variance = sum((t - mean) ** 2 for t in target) / (len(target) - 1)
            errors = [
                (g - (t - mean) / (variance + 1e-6) ** 0.5) ** 2
                for g, t in zip(guess, target, strict=True)
            ]
            total, n = total + sum(errors) / len(errors), n + 1
    assert n == 3 * method.n_masked
    assert found == pytest.approx(total / n, abs=1e-10)


def test_networks_without_maps_are_told():
    with pytest.raises(UserError, match="spark needs a convolutional network, and 'test_vit'"):
        make("spark", Shape(32), "test_vit")
    with pytest.raises(UserError, match="genesis needs a network with maps"):
        make("genesis", Shape(32), "test_vit")
    with pytest.raises(UserError, match="mask_patch 7 does not divide"):
        make("spark", Shape(32), "test_resnet", mask_patch=7)
    assert (
        map_shapes(
            networks.make_encoder("test_vit", Shape(32), patch_size=None, init_key=0), Shape(32)
        )
        == []
    )


# Models Genesis

NONE = {"nonlinear_rate": 0.0, "shuffle_rate": 0.0, "paint_rate": 0.0, "inpaint_share": 0.5}


def distorted(x: torch.Tensor, **rates: float) -> torch.Tensor:
    u = np.random.default_rng(1).random((len(x), distortions.numbers(x.ndim - 2)))
    return distortions.distorted(x, u, SimpleNamespace(**{**NONE, **rates}))


@pytest.fixture(params=[2, 3])
def scans(request) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(40, 1, *[21] * request.param, generator=generator)


def test_nothing_is_done_at_rates_of_zero(scans):
    before = scans.clone()
    assert torch.equal(distorted(scans), before)
    distorted(scans, nonlinear_rate=1, shuffle_rate=1, paint_rate=1)
    assert torch.equal(scans, before)


def test_intensities_go_through_monotone_curves(scans):
    found = distorted(scans, nonlinear_rate=1)
    falling = 0
    for before, after in zip(scans.flatten(1), found.flatten(1), strict=True):
        steps = after[before.argsort()].diff()
        assert (steps >= -1e-6).all() or (steps <= 1e-6).all()
        falling += bool(steps.sum() < 0)
        assert 0 <= after.min() <= after.max() <= 1
    assert 8 < falling < 32  # half of them


def test_curves_are_bezier():
    u = np.random.default_rng(0).random((6, 5))
    made = distortions.curves(u).numpy()
    for (x1, y1, x2, y2, turned), curve in zip(u, made, strict=True):
        for t in (0.1, 0.35, 0.8):
            x = 3 * t * (1 - t) ** 2 * x1 + 3 * t**2 * (1 - t) * x2 + t**3
            s = t if turned < 0.5 else 1 - t
            y = 3 * s * (1 - s) ** 2 * y1 + 3 * s**2 * (1 - s) * y2 + s**3
            assert np.interp(x, np.linspace(0, 1, len(curve)), curve) == pytest.approx(y, abs=0.01)


def test_shuffling_keeps_all_values_and_moves_them_little(scans):
    found = distorted(scans, shuffle_rate=1)
    assert torch.equal(found.flatten(1).sort()[0], scans.flatten(1).sort()[0])
    assert (found != scans).flatten(1).any(dim=1).all()
    smooth = torch.linspace(0, 1, 21).expand(2, 1, *scans.shape[2:])
    assert (distorted(smooth, shuffle_rate=1) - smooth).abs().max() < 0.35


@pytest.mark.parametrize("inside", [True, False])
def test_painting_covers_boxes_or_all_but_boxes(scans, inside):
    found = distorted(scans, paint_rate=1, inpaint_share=float(inside))
    changed = (found != scans).flatten(1).float().mean(dim=1)
    ndim = scans.ndim - 2
    low, high = (0.1**ndim, 5 * 0.38**ndim) if inside else (1 - 5 * 0.62**ndim, 1 - 0.38**ndim)
    assert (changed > low).all()
    assert (changed < high).all()
    assert found.min() >= 0
    assert found.max() <= 1
    centre = (slice(None), 0, *[10] * ndim)
    border = (slice(None), 0, *[0] * ndim)
    hit = [(found != scans)[at].float().mean() for at in (centre, border)]
    assert (hit[0] > hit[1]) == inside


@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_rates_are_shares_of_scans(rate):
    x = torch.rand(600, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for name in ("nonlinear_rate", "shuffle_rate", "paint_rate"):
        found = (distorted(x, **{name: rate}) != x).flatten(1).any(dim=1).float().mean()
        assert float(found) == pytest.approx(rate, abs=0.06)


def test_distortions_are_keyed_by_scan():
    shape = Shape(32)
    method = make("genesis", shape, "test_resnet")
    whole = method.views(batch(shape))
    full = batch(shape)
    some = Batch(full.x[[3, 1]], full.keys[[3, 1]], 0, 5)
    for a, b in zip(whole, method.views(some), strict=True):
        torch.testing.assert_close(a[[3, 1]], b)
    assert not torch.equal(whole[1], method.views(batch(shape, epoch=1))[1])


@pytest.mark.parametrize(("backbone", "shape"), NETS)
def test_genesis_loss_is_the_mean_squared_error_of_all_pixels(backbone, shape):
    method = make("genesis", shape, backbone).double().eval()
    x, bad = (view.double() for view in method.views(batch(shape, 2)))
    with torch.no_grad():
        found = float(method.loss(x, bad)[0])
        restored = method.decoder(pyramid(method.encoder, bad)[::-1], shape.axes)
    guess = 1 / (1 + np.exp(-restored.numpy()))
    assert guess.shape == x.shape
    assert found == pytest.approx(float(np.mean((guess - x.numpy()) ** 2)), abs=1e-10)


@pytest.mark.parametrize("ndim", [2, 3])
def test_encoder_and_decoder_are_the_two_halves_of_monais_unet(ndim):
    shape = Shape(32, 1, ndim)
    method = make("genesis", shape, "monai-test-unet")
    views = method.views(batch(shape, 2))
    engine.train_step(method, optim.make_optimizer(method, 1e-3, 0.0), views)
    kwargs = {**method.encoder.fewscans_network["kwargs"], "out_channels": 1}
    plain = monai_nets.BasicUNet(**kwargs)
    plain.load_state_dict(method.encoder.state_dict() | method.handed_on()["decoder"].state_dict())
    with torch.no_grad():
        expected = method.decoder(pyramid(method.encoder, views[1])[::-1], shape.axes)
        torch.testing.assert_close(plain(views[1]), expected)


def test_the_decoder_is_kept_and_taken_up(tmp_path):
    store = make_store(tmp_path / "store", size=32)
    folds = make_folds(tmp_path / "folds.parquet", store.scans)

    def run(name, out, start=None):
        params = make_params(
            name,
            size=32,
            backbone="monai-test-unet",
            epochs=1,
            **({"start": "first"} if start else {}),
        )
        places = tmp_path / out, tmp_path / "cache", tmp_path / "checkpoints"
        pretrain(params, store, folds, {}, *places, start=start)
        return tmp_path / out

    first = run("genesis", "first")
    meta = json.loads((first / "encoder.json").read_text())
    assert meta["handed_on"] == ["decoder"]
    state = load_file(first / "decoder.safetensors")
    assert {name.split(".")[0] for name in state} == set(monai_nets.EXPANDING)
    # Found in the cache, it comes with its decoder.
    again = run("genesis", "again")
    assert (again / "decoder.safetensors").read_bytes() == (
        first / "decoder.safetensors"
    ).read_bytes()
    # The next stage begins with it; one of another shape keeps its own.
    method = make("genesis", Shape(32), "monai-test-unet")
    assert not torch.equal(
        method.decoder.state_dict()["final_conv.weight"], state["final_conv.weight"]
    )
    Start.open(first).hand_on(method.handed_on())
    assert all(
        torch.equal(value, state[name]) for name, value in method.decoder.state_dict().items()
    )
    other = make("genesis", Shape(32, 3), "monai-test-unet")
    before = copy.deepcopy(other.decoder.state_dict())
    Start.open(first).hand_on(other.handed_on())
    assert all(
        torch.equal(value, before[name]) for name, value in other.decoder.state_dict().items()
    )
    second = run("genesis", "second", first)
    assert not torch.equal(
        load_file(second / "decoder.safetensors")["final_conv.weight"], state["final_conv.weight"]
    )
    # Under one name, another method leaves none of it.
    run("simclr", "first")
    assert not (first / "decoder.safetensors").exists()
