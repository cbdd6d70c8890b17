"""The contract of a method, for every name in the registry."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine_factory import make_known, make_params, make_store

from fewscans import engine, methods, networks, optim
from fewscans.config.encoders import ENCODERS, METHODS
from fewscans.errors import UserError
from fewscans.methods.base import Batch, Method
from fewscans.methods.batch import Scans
from fewscans.resident import Resident
from fewscans.shape import Shape

SIZE, N = 32, 16
# Every method of the registry, with every kind of network that it can train.
KINDS = {
    "any": ("test_resnet", "test_vit"),
    "vit": ("test_vit",),
    "convolutional": ("test_resnet",),
}
CASES = [
    *((name, net) for name, model in sorted(METHODS.items()) for net in KINDS[model.networks]),
    ("simmim", "test_convnext"),
]
# Triplets that are merely semi-hard begin slowly with a ViT.
LONGER = {"exemplar": 60}
# A cross entropy cannot fall below the entropy of its targets: sharp ones for the test that it falls.
EASY = {"dino": {"teacher_temperature": (0.01, 0.01)}}
MASKED = [case for case in CASES if "mask_ratio" in METHODS[case[0]].model_fields]


@pytest.fixture(scope="module")
def resident(tmp_path_factory) -> Resident:
    store = make_store(tmp_path_factory.mktemp("methods") / "store", n=N, size=SIZE)
    return Resident(store, store.scans)


def make(name: str, backbone: str, *, channels: int = 1, size: int = SIZE, **settings):
    given = make_params(name, backbone=backbone, **settings).settings
    encoder = networks.make_encoder(
        backbone, Shape(size, channels), patch_size=given.patch_size, init_key=1
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = methods.load(name)(encoder, given, Shape(size, channels))
        method.know(make_known(N))
        return method


def batch(resident: Resident, *, epoch: int = 0, index=range(N), channels: int = 1) -> Batch:
    def read(rows):
        return resident.batch(rows).repeat(1, channels, 1, 1)

    return Scans(resident.keys, read, make_known(N)).batch(np.array(index), epoch, 5)


def test_registry_is_the_config():
    assert {name for name, model in ENCODERS.items() if model.source == "pretrain"} == set(METHODS)
    for name, model in METHODS.items():
        assert (name, model.name()) == (model.model_validate({}).method, name)
        assert issubclass(methods.load(name), Method)


def test_registry_imports_no_torch():
    code = (
        "import sys, fewscans.methods; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "backbone"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_loss_is_finite_and_reaches_every_parameter(resident, name, backbone, channels):
    method = make(name, backbone, channels=channels)
    views = method.views(batch(resident, channels=channels))
    # timm's ResNets begin with residual branches that are switched off, so a first step opens them.
    engine.train_step(method, optim.make_optimizer(method, 1e-2, 0.0), views)
    method.zero_grad()
    loss, gauges = method.loss(*views)
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    assert gauges["embedding"].ndim == 2
    assert not gauges["embedding"].requires_grad
    loss.backward()
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    dead = [n for n, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0]
    frozen = [n for n, p in method.named_parameters() if n not in trained]
    assert all(n.startswith(("target.", "teacher.")) for n in frozen)
    assert bool(frozen) == (name in ("byol", "dino", "mocov2", "mocov3"))
    # The head that a ConvNeXt has behind its feature map is no part of what SimMIM trains.
    allowed = ("encoder.head.norm.",) if (name, backbone) == ("simmim", "test_convnext") else ()
    assert [n for n in dead if not n.startswith(allowed)] == []


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_same_key_same_loss(resident, name, backbone):
    first, second = make(name, backbone), make(name, backbone)
    torch.manual_seed(77)
    one = first.loss(*first.views(batch(resident)))[0]
    torch.manual_seed(99)
    assert torch.equal(one, second.loss(*second.views(batch(resident)))[0])
    assert not torch.equal(one, first.loss(*first.views(batch(resident, epoch=1)))[0])


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_loss_falls_in_thirty_steps(resident, name, backbone):
    method = optim.place(
        make(name, backbone, strength=0.2, **EASY.get(name, {})), torch.device("cpu")
    )
    method.train()
    optimizer = optim.make_optimizer(method, 2e-3, 0.01)
    views = method.views(batch(resident))
    losses = [
        float(engine.train_step(method, optimizer, views)[0]) for _ in range(LONGER.get(name, 30))
    ]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_the_trained_encoder_is_still_plain_timm(resident, name, backbone):
    import timm

    method = make(name, backbone)
    engine.train_step(
        method, optim.make_optimizer(method, 1e-3, 0.01), method.views(batch(resident))
    )
    network = method.encoder.fewscans_network
    plain = timm.create_model(network["backbone"], **network["kwargs"])
    plain.load_state_dict(copy.deepcopy(method.encoder.state_dict()))
    index = np.arange(N)
    np.testing.assert_allclose(
        networks.embed(plain, resident, index),
        networks.embed(method.encoder, resident, index),
        atol=1e-5,
    )


@pytest.mark.parametrize(("name", "backbone"), MASKED)
def test_masks_are_exact_and_keyed_by_scan(resident, name, backbone):
    method = make(name, backbone, mask_ratio=0.5)
    _, masked = method.views(batch(resident))
    assert masked.dtype == torch.bool
    assert (masked.flatten(1).sum(dim=1) == method.n_masked).all()
    assert method.n_masked == method.resolved()["n_patches"] // 2
    assert len({tuple(row.flatten().tolist()) for row in masked}) > N // 2
    some = [5, 2]
    assert torch.equal(method.views(batch(resident, index=some))[1], masked[some])
    assert not torch.equal(method.views(batch(resident, epoch=1))[1], masked)


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_pictures_show_what_was_masked(resident, name, backbone):
    method = make(name, backbone)
    method.eval()
    with torch.no_grad():
        made = method.pictures(batch(resident))
    if type(method).pictures is Method.pictures:
        assert made is None
        return
    assert all(
        image.shape == (N, 1, SIZE, SIZE) and image.min() >= 0 and image.max() <= 1
        for image in made.values()
    )
    if name == "genesis":  # nothing is hidden, everything may be distorted
        return
    same = made["masked"] == made["original"]
    share = 1 - same.float().mean()
    assert share == pytest.approx(method.n_masked / method.resolved()["n_patches"], abs=0.03)
    torch.testing.assert_close(
        made["reconstructed"][same], made["original"][same], rtol=0, atol=1e-6
    )


def test_mae_encodes_visible_patches_alone(resident):
    method = make("mae", "test_vit")
    x, masked = method.views(batch(resident))
    tokens, order = method.encode(x, masked)
    assert tokens.shape[1] == 1 + method.n_patches - method.n_masked
    hidden = masked.view(N, 1, *method.tokens.grid).repeat_interleave(method.side, 2)
    hidden = hidden.repeat_interleave(method.side, 3)
    other, _ = method.encode(torch.where(hidden, torch.rand_like(x), x), masked)
    torch.testing.assert_close(other, tokens)
    assert (torch.gather(masked, 1, order)[:, : method.n_patches - method.n_masked] == 0).all()


def test_mae_puts_tokens_back_where_they_came_from(resident):
    """The decoder is told which patch is which: without blocks its output at a visible place is that patch's alone."""
    method = make("mae", "test_vit")
    method.decoder = torch.nn.Identity()
    x, masked = method.views(batch(resident))
    tokens, order = method.encode(x, masked)
    found = method.decode(tokens, order)
    n_visible = method.n_patches - method.n_masked
    for b in range(3):
        for place, token in zip(order[b, :n_visible], tokens[b, 1:], strict=True):
            expected = method.to_pixels(
                method.decoder_norm(method.to_decoder(token) + method.position[0, place])
            )
            torch.testing.assert_close(found[b, place], expected)
        for place in order[b, n_visible:]:
            expected = method.to_pixels(
                method.decoder_norm(method.mask_token[0, 0] + method.position[0, place])
            )
            torch.testing.assert_close(found[b, place], expected)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_simmim_does_not_see_masked_pixels(resident, backbone):
    method = make("simmim", backbone).eval()
    x, masked = method.views(batch(resident))
    hidden = (
        masked[:, None]
        .repeat_interleave(method.mask_patch, 2)
        .repeat_interleave(method.mask_patch, 3)
    )
    with torch.no_grad():
        other = method.features(torch.where(hidden, torch.rand_like(x), x), masked)
        torch.testing.assert_close(other, method.features(x, masked))


@pytest.mark.parametrize(("size", "expected"), [(32, 4), (48, 8), (64, 8), (224, 32)])
def test_simmim_masks_squares_that_fit(size, expected):
    assert make("simmim", "test_resnet", size=size).mask_patch == expected


def test_wrong_settings_are_told():
    with pytest.raises(UserError, match="mae needs a plain ViT, and 'test_resnet' is none"):
        make("mae", "test_resnet")
    with pytest.raises(UserError, match="mask_patch 7 does not divide"):
        make("simmim", "test_resnet", mask_patch=7)
    with pytest.raises(UserError, match="mask_patch 2 is not a multiple of the ViT's patch, 4"):
        make("simmim", "test_vit", mask_patch=2)
    with pytest.raises(UserError, match="decoder_dim 30 is not a multiple of 4"):
        make("mae", "test_vit", decoder_dim=30)


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_shares_of_a_batch_make_its_loss(resident, name, backbone):
    """What several processes do: each has half, `gather` gives it the rows of both; the mean of their losses counts.

    Without batch norm, whose statistics are shared otherwise (test_distributed.py).
    """
    method = make(name, backbone).eval()
    views = method.views(batch(resident))
    halves = [tuple(view[part] for view in views) for part in (slice(0, N // 2), slice(N // 2, N))]
    seen: list[torch.Tensor] = []
    method.gather = lambda z: seen.append(z) or z
    for half in halves:
        method.loss(*half)
    rows = iter(
        [
            torch.cat(pair)
            for pair in zip(seen[: len(seen) // 2], seen[len(seen) // 2 :], strict=True)
        ]
        * 2
    )
    method.gather = lambda _: next(rows)
    found = torch.stack([method.loss(*half)[0] for half in halves]).mean()
    method.gather = lambda z: z
    torch.testing.assert_close(found, method.loss(*views)[0])
