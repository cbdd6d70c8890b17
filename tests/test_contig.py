"""ContIG: its loss against a slow transcription, missing tables, and that it learns what tables know."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from engine_factory import make_folds, make_known, make_params, make_store
from slow_math import cosine, random_rows
from test_known import labels

from fewscans import engine, methods, networks, optim
from fewscans.config.encoders import METHODS
from fewscans.config.values import ValueTable
from fewscans.errors import UserError
from fewscans.known import Known
from fewscans.methods.batch import Scans
from fewscans.methods.contig import aggregate, cross_modal
from fewscans.shape import Shape
from fewscans.values import Values
from scripts import pretrain as script

N = 8


# -- the loss --------------------------------------------------------------------------------------


def slow_side(u, v, there, patient, t) -> float:
    """Mean over scans i with values of -log of the share of v_i among all v_k that i is compared with."""
    total = 0.0
    for i in there:
        kept = [k for k in there if k == i or patient[k] != patient[i]]
        below = sum(math.exp(cosine(u[i], v[k]) / t) for k in kept)
        total -= math.log(math.exp(cosine(u[i], v[i]) / t) / below)
    return total / len(there) if there else 0.0


def slow_contig(pairs, present, patient, t, weight, inner) -> float:
    """The authors' loss, table by table and scan by scan; a table without scans adds nothing to the mean."""
    total = 0.0
    for m, (image, table) in enumerate(pairs):
        u, v = image.tolist(), table.tolist()
        there = [
            i
            for i in range(len(u))
            if (all(p[i] for p in present) if inner else bool(present[m][i]))
        ]
        total += weight * slow_side(u, v, there, patient, t)
        total += (1 - weight) * slow_side(v, u, there, patient, t)
    return total / len(pairs)


PRESENT = {
    "all": [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]],
    "some": [[1, 0, 1, 1, 0, 1, 1], [0, 1, 1, 0, 1, 1, 1]],
    "one": [[0, 0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 1, 1, 1]],
    "none": [[0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0]],
    "never both": [[1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1]],
}


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("missing", PRESENT)
@pytest.mark.parametrize("patient", [[0, 1, 2, 3, 4, 5, 6], [0, 0, 1, 2, 1, 3, 0], [4] * 7])
@pytest.mark.parametrize(("t", "weight", "dim"), [(0.1, 0.75, 5), (0.5, 0.5, 2), (1.0, 1.0, 16)])
def test_loss_is_the_slow_one(missing, patient, t, weight, dim, inner):
    pairs = [(random_rows(7, dim, seed=s), random_rows(7, dim, seed=s + 1)) for s in (1, 3)]
    present = [torch.tensor(p, dtype=torch.bool) for p in PRESENT[missing]]
    found = aggregate(pairs, present, torch.tensor(patient), t, weight, inner=inner)
    expected = slow_contig(pairs, PRESENT[missing], patient, t, weight, inner)
    assert float(found) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("n", [2, 3, 17])
def test_loss_without_gaps_is_two_cross_entropies(n):
    image, table = random_rows(n, 6, seed=1), random_rows(n, 6, seed=2)
    similarity = torch.nn.functional.normalize(image) @ torch.nn.functional.normalize(table).T / 0.1
    found = cross_modal(
        image, table, torch.ones(n, dtype=torch.bool), torch.arange(n), 0.1, weight=0.75
    )
    own = torch.arange(n)
    rows, columns = (torch.nn.functional.cross_entropy(s, own) for s in (similarity, similarity.T))
    assert float(found) == pytest.approx(float(0.75 * rows + 0.25 * columns), abs=1e-10)


@pytest.mark.parametrize("present", [[0, 0, 0], [0, 1, 0], [1, 1, 0]])
def test_less_than_two_patients_give_zero_with_gradients(present):
    image, table = (random_rows(3, 4, seed=s).requires_grad_() for s in (1, 2))
    patient = torch.tensor([5, 5, 6])
    loss = cross_modal(
        image, table, torch.tensor(present, dtype=torch.bool), patient, 0.1, weight=0.75
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert image.grad.abs().max() == 0
    assert table.grad.abs().max() == 0


def test_who_has_no_row_has_no_part():
    image, table = (random_rows(5, 4, seed=s).requires_grad_() for s in (1, 2))
    present = torch.tensor([1, 1, 0, 1, 1], dtype=torch.bool)
    cross_modal(image, table, present, torch.arange(5), 0.1, weight=0.75).backward()
    for one in (image, table):
        assert torch.isfinite(one.grad).all()
        assert (one.grad.abs().sum(dim=1) > 0).tolist() == present.tolist()


# -- the method ------------------------------------------------------------------------------------


def make(known: Known, shape: Shape, backbone: str, **settings):
    given = METHODS["contig"].model_validate({"backbone": backbone, **settings})
    encoder = networks.make_encoder(backbone, shape, patch_size=None, init_key=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = methods.load("contig")(encoder, given, shape)
        method.know(known)
    return method


def batch_of(known: Known, pixels: torch.Tensor):
    keys = np.arange(1, len(pixels) + 1, dtype=np.uint64)
    scans = Scans(keys, lambda rows: pixels[torch.as_tensor(rows)], known)
    return scans.batch(np.arange(len(pixels)), 0, 5)


def stripes(classes: np.ndarray, shape: Shape) -> torch.Tensor:
    """Two classes of stripes, along one axis or another, with noise."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.arange(shape.size) / shape.size] * shape.ndim, indexing="ij")
    waves = [0.5 + 0.4 * np.sin(12 * axes[c]) for c in classes]
    noise = rng.normal(0, 0.05, (len(classes), *[shape.size] * shape.ndim))
    return torch.from_numpy((np.array(waves) + noise).clip(0, 1)[:, None].astype(np.float32))


@pytest.mark.parametrize("aggregation", ["outer", "inner"])
@pytest.mark.parametrize(
    ("shape", "backbone"),
    [
        (Shape(32, 1), "test_resnet"),
        (Shape(32, 1), "test_vit"),
        (Shape(16, 1, 3), "monai-test-resnet"),
    ],
)
def test_learns_the_class_that_tables_carry(shape, backbone, aggregation):
    """No label is seen; embeddings of scans it was not trained on lie by class all the same."""
    n, n_new = 24, 16
    classes = np.arange(n + n_new) % 2
    rng = np.random.default_rng(1)
    x = np.column_stack([2.0 * classes - 1, rng.normal(size=n + n_new)]).astype(np.float32)[:n]
    present = np.arange(n) % 6 != 5
    x[~present] = 0
    everyone = np.ones(n, dtype=bool)
    tables = (
        Values("labs", ("a", "b"), x, present),
        Values("genes", ("c",), x[:, :1] * 0.7, everyone),
    )
    known = replace(Known.nothing(n), values=tables)
    pixels = stripes(classes, shape)
    method = optim.place(
        make(known, shape, backbone, strength=0.2, aggregation=aggregation), torch.device("cpu")
    ).train()
    views = method.views(batch_of(known, pixels[:n]))
    optimizer = optim.make_optimizer(method, 2e-3, 0.01)
    losses = [float(engine.train_step(method, optimizer, views)[0]) for _ in range(60)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    with torch.no_grad():
        e = torch.nn.functional.normalize(method.encoder.eval()(pixels).double())
    centres = [e[:n][classes[:n] == c].mean(dim=0) for c in (0, 1)]
    nearest = (e[n:] @ torch.stack(centres).T).argmax(dim=1).numpy()
    assert (nearest == classes[n:]).mean() > 0.9


def test_a_batch_without_values_trains_nothing_and_breaks_nothing():
    known = make_known(N)
    nobody = tuple(
        replace(one, present=np.zeros(N, dtype=bool), x=np.zeros_like(one.x))
        for one in known.values
    )
    method = make(known, Shape(32, 1), "test_resnet").train()
    views = method.views(
        batch_of(replace(known, values=nobody), stripes(np.zeros(N, int), Shape(32, 1)))
    )
    loss, _ = method.loss(*views)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in method.parameters())


def test_values_of_scans_without_a_row_change_nothing():
    known = make_known(N)
    other = tuple(
        replace(one, x=np.where(one.present[:, None], one.x, np.float32(7))) for one in known.values
    )
    pixels = stripes(np.arange(N) % 2, Shape(32, 1))
    method = make(known, Shape(32, 1), "test_resnet").eval()
    first, second = (
        method.loss(*method.views(batch_of(k, pixels)))[0]
        for k in (known, replace(known, values=other))
    )
    assert torch.equal(first, second)


def test_without_knowledge_a_step_can_still_be_timed():
    method = make(Known.nothing(N), Shape(32, 1), "test_resnet")
    loss, gauges = method.loss(
        *method.views(batch_of(Known.nothing(N), stripes(np.zeros(N, int), Shape(32, 1))))
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert gauges["embedding"].shape[0] == N


@pytest.mark.parametrize(
    ("settings", "widths"),
    [
        ({}, [[3, 24, 128], [5, 40, 128]]),
        ({"table_hidden": []}, [[3, 128], [5, 128]]),
        (
            {"table_hidden": [9, 8], "projector_dim": 16, "projector_hidden": 7},
            [[3, 9, 8, 16], [5, 9, 8, 16]],
        ),
    ],
)
def test_networks_of_tables_are_as_wide_as_they_should(settings, widths):
    method = make(make_known(N), Shape(32, 1), "test_resnet", **settings)
    for table, expected in zip(method.tables, widths, strict=True):
        linear = [layer for layer in table if isinstance(layer, torch.nn.Linear)]
        assert [linear[0].in_features, *(layer.out_features for layer in linear)] == expected
    said, width = method.resolved(), method.encoder.num_features
    assert said["tables"] == ["labs", "genes"]
    assert said["table_hidden"] == [w[1:-1] for w in widths]
    assert said["projector_hidden"] == settings.get("projector_hidden", width)


def test_tables_that_cannot_be_contrasted_are_refused():
    known = make_known(N)
    labs, genes = known.values
    apart = replace(known, values=(labs, replace(genes, present=~labs.present)))
    with pytest.raises(UserError, match=r"values all tables: 0 patients.*aggregation: outer"):
        make(apart, Shape(32, 1), "test_resnet", aggregation="inner")
    one = replace(known, patient=np.zeros(N, dtype=np.int64))
    with pytest.raises(UserError, match="values labs: 1 patients"):
        make(one, Shape(32, 1), "test_resnet")
    with pytest.raises(UserError, match="is for one table"):
        make(known, Shape(32, 1), "test_resnet", aggregation="none")
    make(replace(known, values=(labs,)), Shape(32, 1), "test_resnet", aggregation="none")


# -- the script ------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    """Store of 12 scans, two of each patient, folds (0 tests the first four), labels and a table of values."""
    store = make_store(tmp_path / "store")
    make_folds(tmp_path / "folds.parquet", store.scans)
    names = [(f"{i:02d}.png", f"p{i // 2}", "ab"[i % 2]) for i in range(12)]
    table = labels(tmp_path / "labels.parquet", names)
    frame = pd.read_parquet(table).assign(scan=store.scans)
    frame.to_parquet(table)
    write_values(tmp_path / "labs.csv", [1.0, 2.0, 3.5, 2.5, 6.0, 7.0])
    return tmp_path


def write_values(path, crp, sex=("f", "m", "m", "f", "m", "f")) -> None:
    pd.DataFrame({"patient": [f"p{i}" for i in range(6)], "crp": crp, "sex": sex}).to_csv(
        path, index=False
    )


def arguments(place, params, out: str, *more: str) -> list[str]:
    return [
        "--params", params.model_dump_json(), "--store", str(place / "store"), "--folds",
        str(place / "folds.parquet"), "--labels", f"cohort={place / 'labels.parquet'}", "--out", str(place / out),
        "--cache", str(place / "cache"), "--checkpoints", str(place / "checkpoints"), *more,
    ]  # fmt: skip


def run(place, params=None, name: str = "labs.csv") -> dict:
    """encoder.json of what the script makes with the table `name`."""
    given = ("--values", f"labs={place / name}")
    assert script.main(arguments(place, params or make_params("contig"), "out", *given)) == 0
    return json.loads((place / "out/encoder.json").read_text())


def test_the_script_trains_with_a_table(place):
    made = run(place)
    assert made["method"] == "contig"
    assert made["settings"]["tables"] == ["labs"]
    assert made["settings"]["table_hidden"] == [24]  # crp, sex=f, sex=m
    assert run(place)["digest"] == made["digest"]


def test_a_value_of_a_training_scan_alone_makes_another_encoder(place):
    first = run(place)["digest"]
    # Patients p0 and p1 are tested in fold 0: neither their values nor their words are looked at.
    write_values(place / "labs.csv", [1e6, -1e6, 3.5, 2.5, 6.0, 7.0], ["other", "", *"mfmf"])
    assert run(place)["digest"] == first
    write_values(place / "labs.csv", [1.0, 2.0, 3.5, 2.6, 6.0, 7.0])
    assert run(place)["digest"] != first


def test_who_does_not_ask_does_not_depend_on_values(place):
    params = make_params("simclr", spare_patient=True)
    first = run(place, params)["digest"]
    write_values(place / "labs.csv", [7, 6, 5, 4, 3, 2])
    assert run(place, params)["digest"] == first


def test_the_settings_of_a_table_reach_it(place):
    frame = pd.read_csv(place / "labs.csv").rename(columns={"patient": "who"})
    frame.to_csv(place / "labs.tsv", sep="\t", index=False)
    table = ValueTable(table="nowhere.csv", key="who", columns=["crp"])
    params = make_params("contig").model_copy(update={"values": {"cohort": {"labs": table}}})
    assert run(place, params, "labs.tsv")["settings"]["table_hidden"] == [8]  # crp alone


def test_without_a_table_the_script_says_what_to_do(place, capsys):
    assert script.main(arguments(place, make_params("contig"), "out")) == 2
    assert "give --values NAME=FILE" in capsys.readouterr().err
