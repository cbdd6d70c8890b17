"""What a training is given that it cannot use: told in words, with what to do, and nothing is lost."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from engine_factory import make_params, make_store
from pretrain_factory import Place, meta
from safetensors.torch import save_file

from fewscans import engine, methods, networks
from fewscans.config.encoders import ENCODERS
from fewscans.errors import UserError
from fewscans.files import sha256_file
from fewscans.shape import Shape
from fewscans.store import Store


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("other", ["mae", "byol", "simclr"])
def test_a_checkpoint_of_another_training_is_not_gone_on_with(place, caplog, other):
    """Copied there by somebody: each training's own lies under the digest of all that determines it."""
    params = make_params("simclr", epochs=4)
    job, wrong = place.job(params), place.job(make_params(other, epochs=4, projector_dim=32) if other != "mae"
                                              else make_params("mae", epochs=4))  # fmt: skip
    assert job.digest != wrong.digest
    training = engine.Training(wrong.make_method(), wrong.resident, wrong.schedule)
    training.should_stop = lambda: training.step == 3
    states = []
    training.save = states.append
    with pytest.raises(engine.StoppedError):
        training.run()
    checkpoint = job.checkpoint(place.folder / "checkpoints")
    checkpoint.folder.mkdir(parents=True)
    checkpoint.save({"halved": True, "accumulate": 1, "training": states[-1]})
    out, facts = place.run(params)
    assert "the checkpoint is not of this training" in caplog.text
    assert "it begins anew" in caplog.text
    assert facts["flags"] == []
    expected, _ = place.run(params, "expected", cache="other")
    assert sha256_file(out / "encoder.safetensors") == sha256_file(expected / "encoder.safetensors")


def test_a_store_cut_short_or_of_another_table_is_refused(tmp_path):
    store = make_store(tmp_path / "store", n=6)
    other = make_store(tmp_path / "other", n=5)
    cut = tmp_path / "cut"
    shutil.copytree(store.folder, cut)
    voxels = cut / "voxels.npy"
    voxels.write_bytes(voxels.read_bytes()[:-700])
    with pytest.raises(UserError, match=r"cut short or damaged.*run normalise again"):
        Store.open(cut)
    mixed = tmp_path / "mixed"
    shutil.copytree(store.folder, mixed)
    shutil.copy(other.folder / "rows.parquet", mixed / "rows.parquet")
    with pytest.raises(UserError, match=r"not one row for each of 6 scans.*run normalise again"):
        Store.open(mixed)


def test_a_batch_larger_than_the_data_is_all_of_them(place, caplog):
    with caplog.at_level("INFO", "fewscans"):
        out, _ = place.run(make_params(batch_size=4096, epochs=2))
    assert "batch_size 4096 on 8 scans: 1 steps of 8 an epoch" in caplog.text
    assert meta(out)["settings"]["batch_size"] == 8


@pytest.mark.parametrize("n", [9, 13])
def test_no_batch_is_a_rest_of_one_scan(tmp_path, n):
    """Batch norm cannot take one; epochs are cut into equal batches."""
    place = Place(tmp_path, n=n + 4)
    job = place.job(make_params(batch_size=4, epochs=1))
    training = engine.Training(job.make_method(), job.resident, job.schedule)
    sizes = [len(training.batch(step).x) for step in range(job.schedule.n_steps)]
    assert min(sizes) == max(sizes) >= 4
    training.run()


@pytest.mark.parametrize(("name", "changes", "said"), [
    ("mae", {"backbone": "test_vit", "patch_size": 16}, "is one patch.*smaller `patch_size`"),
    ("simmim", {"backbone": "test_resnet", "mask_patch": 16}, "mask_patch 16 does not divide"),
    ("spark", {"backbone": "test_resnet", "mask_patch": 16}, "mask_patch 16 does not divide"),
    ("jigsaw", {"backbone": "test_vit", "patch_size": 8}, "too few for 2 patches.*at least 34"),
    ("relative-location", {"backbone": "test_vit", "patch_size": 4}, "too few for 3 patches.*at least 27"),
])  # fmt: skip
def test_too_few_patches_are_told(name, changes, said):
    given = ENCODERS[name].model_validate({"method": name, **changes})
    encoder = networks.make_encoder(
        given.backbone, Shape(16), patch_size=given.patch_size, init_key=1
    )
    with pytest.raises(UserError, match=said):
        methods.load(name)(encoder, given, Shape(16))


def test_weights_of_other_channels_are_adapted_and_of_another_network_refused(place, tmp_path):
    three = networks.make_encoder("test_resnet", Shape(16, 3), patch_size=None, init_key=5)
    save_file(three.state_dict(), tmp_path / "three.safetensors")
    start = tmp_path / "three.safetensors"
    params = make_params(start=str(start), epochs=1)
    from fewscans.pretrain import pretrain

    places = tmp_path / "out", tmp_path / "cache", tmp_path / "checkpoints"
    pretrain(params, place.store, place.folds, {}, *places, start=start)
    assert meta(tmp_path / "out")["input"]["channels"] == 1
    vit = make_params(start=str(start), epochs=1, backbone="test_vit")
    with pytest.raises(UserError, match=r"not weights of 'test_vit'"):
        pretrain(vit, place.store, place.folds, {}, *places, start=start)


def test_scans_that_a_store_lacks_are_said(place, caplog):
    few = make_store(place.folder / "few", n=9)
    place.store = few
    with caplog.at_level("WARNING", "fewscans"):
        place.run(make_params(epochs=1))
    assert "3 of 8 training scans are in no store and are left out" in caplog.text
    assert np.isfinite(meta(place.folder / "out")["loss"])
