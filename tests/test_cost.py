"""Estimates: more work takes longer, measurements go before rates, and what nobody knows is called unknown."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_factory import make_params
from pretrain_factory import Place

from fewscans.commands import calibrate
from fewscans.config import ENCODERS, load, read_config_file
from fewscans.cost import calibration, sizes
from fewscans.cost.calibration import Machine, Rate, Step
from fewscans.cost.counts import Counts, count
from fewscans.cost.history import History, Measured
from fewscans.cost.measure import wanted
from fewscans.cost.model import Model
from fewscans.plan import Plan, expand
from fewscans.shape import Shape

ROOT = Path(__file__).resolve().parents[1]
PRETRAIN = ("pretrain", "simclr", "px48", "p")
FINETUNE = ("finetune", "simclr", "px48", "p")


def plan_of(**changes: Any) -> Plan:
    raw: dict[str, Any] = {
        "datasets": {"p": {"phantom": {"n_patients": 150}}},
        "recipes": {"px48": {"size": 48}},
        "encoders": {"simclr": {"method": "simclr", "backbone": "test_resnet", "epochs": 100}},
        "protocol_settings": {"finetune": {"steps": 150}},
        "budgets": ["12", "all"],
        "validation": {"folds": 3, "seeds": 1, "draws": 2},
    }
    return expand(load({**raw, **changes}, "config"))


def model_of(history: History | None = None, machines: Any = None, **changes: Any) -> Model:
    return Model(plan_of(**changes), history or History(), machines or {})


def simclr(**settings: Any) -> dict[str, Any]:
    return {"simclr": {"method": "simclr", "backbone": "test_resnet", "epochs": 100, **settings}}


@pytest.fixture(autouse=True)
def own_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(calibration.VARIABLE, str(tmp_path / "calibration.json"))
    monkeypatch.chdir(tmp_path)


# -- amounts ---------------------------------------------------------------------------------------


def test_more_epochs_take_longer_in_proportion():
    short = model_of(encoders=simclr(epochs=100)).of(*PRETRAIN)
    long = model_of(encoders=simclr(epochs=1000)).of(*PRETRAIN)
    start = calibration.DECLARED.startup["torch"]
    assert (long.seconds - start) / (short.seconds - start) == pytest.approx(10)
    assert short.source == "declared"


@pytest.mark.parametrize("length", [{"epochs": 7}, {"steps": 50}, {"epochs": None}])
def test_steps_are_those_of_the_training(length, tmp_path, monkeypatch):
    job = Place(tmp_path).job(make_params(**{"epochs": None, **length}))
    encoder = simclr(**{"epochs": None, "batch_size": 4, **length})
    work = model_of(encoders=encoder, baselines=["scratch-long"]).work
    n = len(job.resident)
    monkeypatch.setattr(type(work), "_trained_on", lambda *_: n)
    assert work.schedule("simclr", "p") == (job.schedule.n_steps, job.schedule.batch_size)
    assert work.extra_steps("scratch-long-test-resnet", "px48", "p") == job.schedule.n_steps


def test_micro_batches_need_less_memory():
    whole, parts = (
        model_of(encoders=simclr(accumulate=n)).footprint.memory("pretrain", "simclr", "px48", "p")
        for n in (1, 4)
    )
    assert parts < whole


def test_more_pixels_patients_and_draws_take_longer():
    base = model_of().of(*FINETUNE).seconds
    assert model_of(recipes={"px48": {"size": 96}}).of(*FINETUNE).seconds > 2 * base
    draws = model_of(validation={"folds": 3, "seeds": 1, "draws": 9})
    assert draws.of(*FINETUNE).seconds > 2 * base
    few = model_of(datasets={"p": {"phantom": {"n_patients": 40}}})
    assert few.of(*PRETRAIN).seconds < 0.5 * model_of().of(*PRETRAIN).seconds


def test_inner_folds_are_trainings_too():
    inner = model_of(protocol_settings={"finetune": {"steps": 150, "inner_folds": 3}})
    assert inner.of(*FINETUNE).seconds > 3 * model_of().of(*FINETUNE).seconds


def test_the_long_baseline_has_the_steps_of_pretraining():
    model = model_of(baselines=["scratch", "scratch-long"])
    name = next(name for name in model.plan.encoders if name.startswith("scratch-long"))
    steps, _ = model.work.schedule("simclr", "p")
    assert model.work.extra_steps(name, "px48", "p") == steps


def test_a_network_that_nobody_measured_is_unknown_and_the_others_are_not():
    model = model_of(encoders=simclr(backbone="resnet50"))
    found = model.of(*PRETRAIN)
    assert (found.seconds, found.source) == (0.0, "unknown")
    assert found.mem_mb > 1000  # memory is still said
    assert model.of("normalise", "", "px48", "p").source == "declared"
    assert model.of("finetune", "majority", "px48", "p").source == "declared"


def test_nothing_is_declared_of_gpus():
    model = model_of(compute={"device": "cuda"})
    assert model.of(*PRETRAIN).source == "unknown"
    assert model.of("aggregate").source == "declared"


def test_a_larger_network_leaves_more_on_disk_and_takes_more_memory():
    small, large = model_of(), model_of(encoders=simclr(backbone="resnet50"))
    assert large.of(*PRETRAIN).output_mb > 90 > small.of(*PRETRAIN).output_mb
    assert large.of(*PRETRAIN).mem_mb > small.of(*PRETRAIN).mem_mb


@pytest.mark.parametrize(
    ("method", "backbone"),
    [("simclr", "test_resnet"), ("simclr", "resnet18"), ("mae", "vit_tiny_patch16_224")],
)
def test_a_checkpoint_takes_what_is_said_of_it(tmp_path, method, backbone):
    import torch

    from fewscans import methods, networks, optim
    from fewscans.checkpoint import Checkpoint

    settings = ENCODERS[method].model_validate({"backbone": backbone})
    encoder = networks.make_encoder(backbone, Shape(48), patch_size=None, init_key=0)
    made = methods.load(method)(encoder, settings, Shape(48))
    optimizer = optim.make_optimizer(made, 0.0, 0.0)
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    store = Checkpoint(tmp_path / "state")
    state = {"method": made.state_dict(), "optimizer": optimizer.state_dict()}
    store.save({"halved": False, "training": state})
    taken = store.path.stat().st_size / sizes.MB
    assert taken <= sizes.checkpoint_mb(backbone) <= 1.6 * taken


def test_pretraining_alone_holds_checkpoints_two_while_one_takes_the_others_place_and_a_sound_one():
    model = model_of(encoders=simclr(backbone="resnet50"))
    one = sizes.checkpoint_mb("resnet50")
    assert 3 * one <= model.of(*PRETRAIN).scratch_mb <= 3 * one + 1
    assert model.of(*FINETUNE).scratch_mb == 0
    assert model.of(*PRETRAIN).output_mb < one


def test_ranks_share_batches_of_which_each_has_its_part():
    alone, shared = model_of(encoders=simclr()), model_of(encoders=simclr(ranks=4))
    assert shared.work.schedule("simclr", "p")[1] % 4 == 0
    assert shared.of(*PRETRAIN).seconds < alone.of(*PRETRAIN).seconds


def test_the_demo_is_declared_as_it_was_measured():
    # benchmarks/README.md: 206.8 s of pretraining and 415.1 s of fine-tuning, two jobs at once.
    name = ROOT / "config" / "config.yaml"
    model = Model(expand(load(read_config_file(name), str(name))), History(), {})
    total = {"pretrain": 0.0, "finetune": 0.0}
    for encoder, recipe in model.plan.pairs:
        rules = ["finetune", *(["pretrain"] if model.plan.encoders[encoder].pretrained else [])]
        for rule in rules:
            total[rule] += 3 * model.of(rule, encoder, recipe, "phantom").seconds
    assert total == {
        "pretrain": pytest.approx(206.8, rel=0.1),
        "finetune": pytest.approx(415.1, rel=0.1),
    }


# -- counts ----------------------------------------------------------------------------------------


def write_table(folder: Path, lines: list[str]) -> dict[str, Any]:
    (folder / "scans").mkdir()
    (folder / "scans" / "labels.csv").write_text("\n".join(lines) + "\n")
    return {"root": "scans", "table": "labels.csv"}


def test_scans_and_patients_of_a_table(tmp_path):
    lines = ["path,label,patient", *(f"{i}.png,{i % 2},{i // 3}" for i in range(30)), "out.png,0,9"]
    dataset = {**write_table(tmp_path, lines), "exclude": ["out*"]}
    found = count(plan_of(datasets={"p": dataset}).config, "p")
    assert found == Counts(30, 10)
    assert (found.held_out(5), found.labelled("2", 5), found.labelled("50%", 5)) == (6, 6, 12)


def test_an_official_test_part_is_counted(tmp_path):
    lines = ["path,label,patient,split"]
    lines += [f"{i}.png,{i % 2},{i},{'Test' if i < 7 else 'train'}" for i in range(30)]
    dataset = {**write_table(tmp_path, lines), "split": "official"}
    assert count(plan_of(datasets={"p": dataset}).config, "p") == Counts(30, 30, 7)


def test_an_archive_is_counted_from_its_headers(tmp_path):
    images = {f"{part}_images": np.zeros((n, 4, 4), np.uint8) for part, n in [("train", 30), ("test", 12)]}  # fmt: skip
    np.savez_compressed(tmp_path / "a.npz", **images)
    config = plan_of(datasets={"p": {"npz": "a.npz", "split": "official"}}).config
    assert count(config, "p") == Counts(42, 42, 12)


def test_a_folder_without_a_table_is_not_walked_through(tmp_path):
    (tmp_path / "scans").mkdir()
    model = model_of(datasets={"p": {"root": "scans"}})
    assert model.of("convert", "", "", "p").source == "unknown"
    assert model.of(*PRETRAIN).source == "unknown"


# -- measurements and calibration ------------------------------------------------------------------


def test_a_measurement_goes_before_every_rate():
    plain = model_of()
    history = History()
    for seconds in (110.0, 120.0, 130.0):
        history.add(plain.mark(*PRETRAIN)[0], Measured(seconds, 900.0, plain.mark(*PRETRAIN)[1]))
    found = model_of(history).of(*PRETRAIN)
    assert (found.seconds, found.source) == (120.0, "measured:3")
    assert found.p95 >= 130
    assert found.mem_mb == 1200  # 900 MB and a margin, in hundreds


def test_memory_of_a_short_job_is_not_trusted_below_the_formula():
    plain = model_of()
    key, amount = plain.mark(*PRETRAIN)
    short = History({key: [Measured(20.0, 300.0, amount)]})
    assert model_of(short).of(*PRETRAIN).mem_mb == plain.of(*PRETRAIN).mem_mb
    long = History({key: [Measured(500.0, 600.0, amount)]})
    assert model_of(long).of(*PRETRAIN).mem_mb == 800


def test_a_measurement_of_fewer_epochs_is_scaled_and_not_taken_for_its_like():
    short = model_of(encoders=simclr(epochs=50))
    history = History()
    history.add(short.mark(*PRETRAIN)[0], Measured(1000.0, 900.0, short.mark(*PRETRAIN)[1]))
    found = model_of(history).of(*PRETRAIN)
    assert found.source == "scaled"
    assert 1500 < found.seconds < 2000
    other = model_of(history, recipes={"px48": {"size": 64}}).of(*PRETRAIN)
    assert other.source == "declared"  # another size is other work


def step_of(model: Model, what: Any = "pretrain") -> Step:
    return model.work.step(what, "simclr", "px48")


def machine_of(steps: dict[Step, Rate], **more: Any) -> dict[str, Machine]:
    name = calibration.processor()
    made = Machine(name, "cpu", startup={"plain": 0.55, "torch": 4.0}, steps=steps, **more)
    return {name: made}


def test_a_calibration_goes_before_what_is_declared():
    plain = model_of()
    machines = machine_of({step_of(plain): Rate(0.0, 0.001)})
    found = model_of(machines=machines).of(*PRETRAIN)
    steps, batch = plain.work.schedule("simclr", "p")
    assert found.source == "scaled"
    assert found.seconds == pytest.approx(4.0 + steps * batch * 0.001)


def test_what_a_calibration_lacks_is_declared_at_its_pace():
    plain = model_of()
    machines = machine_of({step_of(plain): Rate(0.0, 0.001)})
    next(iter(machines.values())).startup["plain"] = 1.1  # half as fast
    found = model_of(machines=machines).of(*FINETUNE)
    assert found.source == "declared"
    assert found.seconds > 1.5 * plain.of(*FINETUNE).seconds


def test_rates_scale_with_pixels_and_threads():
    model = model_of()
    step = step_of(model)
    machine = Machine("m", "cpu", steps={step: Rate(0.01, 0.002)})
    twice = machine.step(Step(**{**vars(step), "size": 96}))
    assert (twice.base, twice.image) == (0.01, pytest.approx(0.008))
    threads = machine.step(Step(**{**vars(step), "threads": 4}))
    assert 0.0005 < threads.image < 0.002
    assert machine.step(Step(**{**vars(step), "backbone": "resnet18"})) is None


def test_slices_that_nobody_measured_take_as_many_images():
    step = step_of(model_of())
    machine = Machine("m", "cpu", steps={step: Rate(0.01, 0.002)})
    volumes = Step(**{**vars(step), "backbone": "slices-test_resnet", "ndim": 3, "size": 24})
    found = machine.step(volumes)
    assert found.base == 0.01
    assert found.image == pytest.approx(0.002 / 4 * 24)
    # Beyond 32 slices they grow in two directions only.
    assert machine.step(replace(volumes, size=96)).image == pytest.approx(0.002 * 4 * 32)
    measured = Machine("m", "cpu", steps={replace(volumes, size=32): Rate(0.0, 0.1)})
    assert measured.step(replace(volumes, size=64)).image == pytest.approx(0.4)
    assert machine.step(replace(volumes, backbone="inflated-test_resnet")) is None


def test_lifted_networks_have_the_weights_they_have():
    from fewscans import networks

    for backbone in ("slices-resnet18", "inflated-resnet18", "inflated-resnet50"):
        made = networks.make_encoder(backbone, Shape(32, 1, 3), patch_size=None, init_key=0)
        millions = sum(p.numel() for p in made.parameters()) / 1e6
        said, length = sizes.weights(backbone)
        assert millions <= 1.02 * said <= 2 * millions
        assert length == networks.embedding_dim(made)


def test_a_plan_of_lifted_networks_is_sized():
    recipe = {"px48": {"ndim": 3, "size": 48}}
    made = [
        model_of(recipes=recipe, encoders=simclr(backbone=backbone)).of(*PRETRAIN)
        for backbone in ("slices-test_resnet", "inflated-test_resnet", "monai-test-resnet")
    ]
    assert all(500 <= of.mem_mb < 100_000 for of in made)
    assert made[0].mem_mb < made[1].mem_mb


def test_parts_cost_what_is_seen_of_scans():
    def pretrain_and_finetune(**more):
        model = model_of(recipes={"px48": {"size": 96, **more}}, encoders=simclr())
        return model.of(*PRETRAIN), model.of(*FINETUNE)

    whole, parts = pretrain_and_finetune(), pretrain_and_finetune(crop=48)
    assert parts[0].seconds < whole[0].seconds
    assert parts[0].mem_mb < whole[0].mem_mb
    # Four overlapping quarters and more of each scan, in place of its whole.
    model = model_of(recipes={"px48": {"size": 96, "crop": 48}}, encoders=simclr())
    assert model.plan.recipes["px48"].parts == 9
    assert step_of(model, "embed").size == 48


def test_the_gpu_model_asked_for_is_the_one_that_counts():
    machines = {
        name: Machine(name, "cuda", measured=when)
        for name, when in [("NVIDIA A100-SXM4-40GB", "2026"), ("NVIDIA H200", "2027")]
    }
    assert calibration.choose(machines, "cuda", "a100").name == "NVIDIA A100-SXM4-40GB"
    assert calibration.choose(machines, "cuda").name == "NVIDIA H200"
    assert calibration.choose(machines, "cuda", "v100") is None
    assert calibration.choose({}, "cpu") is None


def test_a_calibration_is_kept_and_added_to(tmp_path):
    file, model = tmp_path / "c" / "calibration.json", model_of()
    one, two = step_of(model), step_of(model, "finetune")
    calibration.keep(Machine("m", "cpu", torch="2", steps={one: Rate(1.0, 2.0)}), file)
    calibration.keep(Machine("m", "cpu", torch="2", steps={two: Rate(3.0, 4.0)}), file)
    assert calibration.read(file)["m"].steps == {one: Rate(1.0, 2.0), two: Rate(3.0, 4.0)}
    calibration.keep(Machine("m", "cpu", torch="3", steps={two: Rate(5.0, 6.0)}), file)
    assert calibration.read(file)["m"].steps == {two: Rate(5.0, 6.0)}  # other torch, other rates


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 9}', '{"format": 1, "machines": 3}'])
def test_a_broken_calibration_is_as_good_as_none(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    assert calibration.read(tmp_path / "c.json") == {}


def test_each_kind_of_step_is_measured_once():
    two = {**simclr(), "mae": {"method": "mae", "backbone": "test_vit"}}
    found = wanted(plan_of(encoders={**two, "again": {**two["simclr"], "epochs": 5}}))
    kinds = [(one.step.what, one.step.method, one.step.backbone) for one in found]
    assert len(kinds) == len(set(kinds)) == 6
    assert {one[0] for one in kinds} == {"pretrain", "finetune", "embed"}


@pytest.mark.slow
def test_calibrate_measures_what_the_plan_then_uses(tmp_path, capsys):
    config = {
        "datasets": {"p": {"phantom": {"n_patients": 20}}},
        "recipes": {"px48": {"size": 16}},
        "encoders": simclr(batch_size=8),
        "baselines": ["majority"],
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    arguments = ["--configfile", str(tmp_path / "config.yaml"), "--seconds", "0.05"]
    arguments += ["--at-once", "1", "--device", "cpu"]
    parser = argparse.ArgumentParser()
    calibrate.add_arguments(parser)
    assert calibrate.run(parser.parse_args(arguments)) == 0
    said = capsys.readouterr().out
    assert "test_resnet, 16 pixels" in said
    assert "convert" in said
    model = Model(expand(load(config, "config")), History())
    assert model.of(*PRETRAIN).source == "scaled"
    assert model.of(*FINETUNE).source == "scaled"
    assert model.of("convert", "", "", "p").seconds > 0
