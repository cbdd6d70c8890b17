"""The workflow as a user types it: what is planned, what is computed again, and what a kill leaves behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from workflows import ROOT, Clone, copy_clone, environment, make_clone


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Clone:
    """A small workflow, run to its end once."""
    clone = make_clone(tmp_path_factory.mktemp("finished") / "clone")
    clone.run("--cores", "2")
    return clone


@pytest.fixture
def clone(finished, tmp_path) -> Clone:
    """A finished workflow that a test may change."""
    return copy_clone(finished, tmp_path / "clone")


# -- as typed --------------------------------------------------------------------------------------------------------


def test_run_to_the_end_leaves_table_report_and_figures(finished):
    table = pd.read_csv(finished.folder / "results/ablation_table.csv")
    assert set(table["budget"].astype(str)) == {"6", "all"}
    assert {
        "majority.px32.prior",
        "scratch-test-resnet.px32.finetune",
        "simclr.px32.linear",
        "simclr.px32.finetune",
    } == set(table["arm"])
    assert (table["auroc_low"] <= table["auroc"]).all()
    assert (table["auroc"] <= table["auroc_high"]).all()
    for path in (
        "report.html",
        "ablation_table.parquet",
        "ablation_table.md",
        "ablation_table.tex",
        "figures/tiny/forest.pdf",
    ):
        assert (finished.folder / "results" / path).stat().st_size > 0
    assert not (finished.folder / "work/run.json").exists()


def test_nothing_to_do_after_a_run(clone):
    assert clone.to_run() == {}


@pytest.mark.parametrize(
    "target", [[], ["results/ablation_table.csv"], ["--profile", "profiles/slurm"]], ids=str
)
def test_dry_runs_as_typed_plan_every_run(tmp_path, target):
    clone = make_clone(tmp_path / "clone")
    jobs = clone.to_run(*target)
    assert jobs["finetune"] == 2 * 3
    assert jobs["pretrain"] == 2
    assert not (clone.folder / "work").exists()


def test_default_profile_leaves_cores_and_cards_to_a_named_profile(tmp_path):
    clone = make_clone(tmp_path / "clone")
    local = yaml_profile(clone, [])
    assert local["cores"] == "all"
    for asked in (["--profile", "profiles/slurm"], ["--profile=profiles/slurm"]):
        assert "cores" not in yaml_profile(clone, asked)
        assert "resources" not in yaml_profile(clone, asked)


def yaml_profile(clone: Clone, arguments: list[str]) -> dict:
    """The default profile as YTE renders it for a command line."""
    code = (
        "import sys, yte, json; text = open('profiles/default/config.yaml').read();"
        "print(json.dumps(yte.process_yaml(text, require_use_yte=True)))"
    )
    import json
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=clone.folder,
        env=environment(),
        check=True,
        text=True,
        capture_output=True,
    )
    return json.loads(done.stdout)


def test_snakemake_report_holds_table_figures_and_captions(clone):
    clone.run("--report", "report.html")
    page = (clone.folder / "report.html").read_text()
    for part in ("ablation_table.csv", "forest.png", "budget.png", "embeddings.png", "views.png"):
        assert part in page, part
    assert "Difference from the baseline" in page


def test_lint_is_clean(tmp_path):
    done = make_clone(tmp_path / "clone").run("--lint", check=False)
    assert "Congratulations" in done.stdout, done.stdout


def test_works_from_elsewhere(tmp_path):
    clone = make_clone(tmp_path / "clone")
    elsewhere = tmp_path / "else where"
    (elsewhere / "config").mkdir(parents=True)
    os.rename(clone.folder / "raw", elsewhere / "raw")
    os.rename(clone.folder / "config/config.yaml", elsewhere / "config/config.yaml")
    clone.run("--directory", str(elsewhere), "--cores", "2", "work/tiny/px32/store/store.json")
    assert (elsewhere / "work/tiny/px32/store/voxels.npy").exists()
    assert not (clone.folder / "work").exists()


def test_works_as_a_module_of_another_workflow(tmp_path):
    clone = make_clone(tmp_path / "clone")
    other = tmp_path / "other"
    other.mkdir()
    os.rename(clone.folder / "raw", other / "raw")
    config = (clone.folder / "config/config.yaml").read_text()
    (other / "other.yaml").write_text(yaml.safe_dump({"fewscans": yaml.safe_load(config)}))
    (other / "Snakefile").write_text(
        'configfile: "other.yaml"\n\n'
        f'module fewscans:\n    snakefile: "{clone.folder}/Snakefile"\n    config: config["fewscans"]\n\n'
        "use rule * from fewscans as fewscans_*\n\n"
        'rule mine:\n    input: "work/tiny/labels.parquet"\n    output: "mine.txt"\n    shell: "echo done > {output}"\n'
    )
    Clone(other).run("--cores", "2", "mine.txt")
    assert (other / "mine.txt").exists()


def fake_npz(path):
    """A file in MedMNIST's 3D layout."""
    path.parent.mkdir(parents=True)
    parts = {"train": 60, "val": 10, "test": 20}
    np.savez(
        path,
        **{f"{part}_images": np.zeros((n, 4, 4, 4), np.uint8) for part, n in parts.items()},
        **{f"{part}_labels": np.arange(n)[:, None] % 2 for part, n in parts.items()},
    )


@pytest.mark.parametrize(
    "example", sorted(p.name for p in (ROOT / "config/examples").glob("*.yaml"))
)
def test_examples_plan(tmp_path, example):
    """Every example config, on data made to fit its tables."""
    clone = make_clone(tmp_path / "clone")
    config = yaml.safe_load((ROOT / "config/examples" / example).read_text())
    for dataset in config["datasets"].values():
        if "root" in dataset:
            fake_data(clone.folder / config.get("data_root", ".") / dataset["root"], dataset)
        if "npz" in dataset:
            fake_npz(clone.folder / config["data_root"] / dataset["npz"])
    jobs = clone.to_run("--configfile", f"config/examples/{example}")
    assert jobs["aggregate"] == 1
    assert jobs["pretrain"] > 0


def fake_data(root: Path, dataset: dict) -> None:
    root.mkdir(parents=True, exist_ok=True)
    classes = dataset.get("classes", ["a", "b"])
    rows = []
    for patient in range(200):
        name = f"scan {patient}.png"
        (root / name).write_bytes(b"")
        split = ["train", "val", "test"][patient // 3 % 3]
        rows.append(
            {
                "path": name,
                "label": classes[patient % len(classes)],
                "patient": f"p{patient}",
                "split": split,
            }
        )
    pd.DataFrame(rows).to_csv(root / dataset["table"], index=False)


# -- only what changed -----------------------------------------------------------------------------------------------


def test_touched_scripts_and_moved_clones_rerun_nothing(clone, tmp_path):
    for script in (clone.folder / "scripts").glob("*.py"):
        script.touch()
    os.rename(clone.folder, tmp_path / "moved")
    assert Clone(tmp_path / "moved").to_run() == {}


def test_a_comment_reruns_nothing_and_a_changed_function_what_uses_it(clone):
    file = clone.folder / "fewscans/methods/simclr.py"
    file.write_text("# a comment\n" + file.read_text())
    assert clone.to_run() == {}
    file.write_text(file.read_text() + "\n\ndef more():\n    return 1\n")
    jobs = clone.to_run()
    assert jobs["pretrain"] == 2
    assert jobs["finetune"] == 2
    assert "convert" not in jobs


def test_a_new_method_reruns_nothing(clone):
    registry = clone.folder / "fewscans/config/encoders/__init__.py"
    text = registry.read_text()
    assert "    Mae, Simmim, Spark," in text
    registry.write_text(
        text.replace("    Mae, Simmim,", "    Mae, Simmim, Other,").replace(
            "import Genesis, Mae, Simmim", "import Genesis, Mae, Other, Simmim"
        )
    )
    settings = clone.folder / "fewscans/config/encoders/masked.py"
    settings.write_text(
        settings.read_text() + "\n\nclass Other(PretrainSettings):\n"
        '    """Other."""\n\n    method: Literal["other"] = "other"\n    title: ClassVar[str] = "Other"\n'
        '    module: ClassVar[str] = "fewscans.methods.other"\n'
    )
    (clone.folder / "fewscans/methods/other.py").write_text("def loss():\n    return 0\n")
    assert clone.to_run() == {}


def test_a_changed_colour_draws_again_and_computes_nothing(clone):
    clone.config(report={"palette": "deep"})
    assert clone.to_run() == {"report": 1}


def test_a_new_arm_computes_that_arm(clone):
    clone.config(baselines=["majority", "random", "scratch"])
    jobs = clone.to_run()
    assert jobs == {"finetune": 2, "plan": 1, "aggregate": 1, "report": 1}


def test_a_changed_budget_converts_nothing_and_retrains_no_encoder(clone):
    clone.config(budgets=["6", "8", "all"])
    jobs = clone.to_run()
    assert set(jobs) == {"budgets", "finetune", "plan", "aggregate", "report"}
    before = cache_of(clone)
    clone.run("--cores", "2", "work/predictions/simclr/px32/tiny/0/0/predictions.parquet")
    new = cache_of(clone) - before
    assert new, "the new budget was not computed"
    predictions = pd.read_parquet(
        clone.folder / "work/predictions/simclr/px32/tiny/0/0/predictions.parquet"
    )
    assert set(predictions["budget"]) == {"6", "8", "all"}


def test_a_corrected_label_converts_nothing_and_retrains_no_encoder(clone):
    table = clone.folder / "raw/labels.csv"
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    folds = pd.read_parquet(clone.folder / "work/tiny/folds.parquet")
    encoders = {
        p: p.read_bytes() for p in clone.folder.glob("work/encoders/*/*/*/*/*/encoder.safetensors")
    }
    assert encoders
    frame["site"] = "somewhere"  # another attribute changes: the table's labels are the same
    frame.to_csv(table, index=False)
    jobs = clone.to_run()
    assert "convert" not in jobs
    assert "normalise" not in jobs
    before = cache_of(clone)
    clone.run("--cores", "2", "work/encoders/simclr/px32/tiny/0/0/encoder.json")
    assert pd.read_parquet(clone.folder / "work/tiny/folds.parquet").equals(folds)
    assert cache_of(clone) == before, "something was trained again"
    assert {p: p.read_bytes() for p in encoders} == encoders


def test_changed_folds_retrain(clone):
    clone.config(validation={"folds": 3, "seeds": 1, "draws": 1})
    before = cache_of(clone)
    clone.run("--cores", "2", "work/encoders/simclr/px32/tiny/0/0/encoder.json")
    assert cache_of(clone) - before


def test_a_changed_path_converts_again(clone):
    table = clone.folder / "raw/labels.csv"
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    frame.iloc[:-1].to_csv(table, index=False)
    assert clone.to_run()["convert"] == 1


def cache_of(clone: Clone) -> set[str]:
    """Names of everything that was computed, by content."""
    return {str(path.relative_to(clone.folder)) for path in clone.folder.glob("work/cache/*/*")}


# -- same bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_core_gives_the_bytes_of_two(finished, tmp_path):
    clone = make_clone(tmp_path / "clone")
    clone.run("--cores", "1", "results/ablation_table.csv")
    assert clone.table() == finished.table()


@pytest.mark.slow
def test_killed_at_random_times_and_started_again_gives_the_same_bytes(finished, tmp_path):
    """``kill -9`` of Snakemake and all its children, several times, and the same command again."""
    clone = make_clone(tmp_path / "clone")
    clock = random.Random(1)
    kills = 0
    while kills < 5:
        process = subprocess.Popen(
            clone.command("--cores", "2", "results/ablation_table.csv"),
            cwd=clone.folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + clock.uniform(3, 8)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 2, "the run was over before it could be killed"
    clone.run("--cores", "2", "results/ablation_table.csv")
    assert clone.table() == finished.table()


# -- bad input -------------------------------------------------------------------------------------------------------


def test_all_problems_of_config_and_tables_are_said_before_any_job(tmp_path):
    clone = make_clone(tmp_path / "clone")
    clone.config(encoders={"simclr": {"method": "simclr", "epohs": 3}}, protocols=["lineer"])
    text = clone.run(check=False).stdout
    assert "2 problems" in text
    assert "Did you mean 'epochs'?" in text
    assert "Did you mean 'linear'?" in text
    table = clone.folder / "raw/labels.csv"
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join([*lines, lines[1], "../outside.png,benign,p1,,,", "gone.png,benign,p2,,,"]) + "\n"
    )
    clone.config()
    text = clone.run(check=False).stdout
    assert "../outside.png" in text
    assert "gone.png" in text
    assert lines[1].split(",")[0] in text, "the doubled row"
    assert not (clone.folder / "work").exists()


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_lives(clone):
    import json

    from fewscans.runrecord import process_start

    (clone.folder / "work/run.json").write_text(
        json.dumps(
            {
                "host": os.uname().nodename,
                "pid": os.getpid(),
                "start": process_start(os.getpid()),
                "command": "snakemake",
            }
        )
    )
    clone.config(report={"palette": "deep"})
    done = clone.run("--cores", "1", check=False)
    assert done.returncode != 0
    assert f"pid {os.getpid()}" in done.stdout
    assert (clone.folder / "work/run.json").exists()
