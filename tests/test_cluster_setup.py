"""``fewscans cluster-setup`` on clusters whose commands are files; the real ones are tried in tests/slurm."""

from __future__ import annotations

import os

import fake_lab
import pytest

from fewscans.__main__ import main
from fewscans.cluster import look
from fewscans.cluster.look import gpus, minutes
from fewscans.cluster.site import read_site


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FEWSCANS_SITE", raising=False)

    def go(changes=None, *, name="lab", out=tmp_path / "partitions.yaml"):
        folder = tmp_path / name
        path = fake_lab.install(folder, {**fake_lab.LAB, **(changes or {})})
        monkeypatch.setenv("PATH", f"{path}{os.pathsep}/usr/bin:/bin")
        code = main(["cluster-setup", "--out", str(out)])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return go


def test_a_lab_as_found(run, tmp_path):
    code, out, err = run()
    assert (code, err) == (0, "")
    site = read_site(tmp_path / "partitions.yaml")
    assert list(site.partitions) == ["std", "gpu", "scavenge"]
    assert site.partitions["std"].model_dump() == {
        "max_runtime": 1440,
        "max_threads": 64,
        "max_mem_mb": 180000,
        "max_gpu": 0,
        "gpu_models": [],
        "nodes": 2,
        "total_gpu": 0,
        "preempt": "off",
        "default": True,
    }
    gpu = site.partitions["gpu"]
    assert (gpu.gpu_models, gpu.max_gpu, gpu.total_gpu) == (["a100", "v100"], 4, 10)
    assert site.partitions["scavenge"].preempt == "requeue"
    assert site.partitions["scavenge"].max_runtime is None
    assert (site.cluster.accounting, site.cluster.max_submit_jobs) == (True, 60)
    # The default account; most of the GPUs' model, since they are mixed; not where jobs are pushed out.
    assert site.account == "chemistry"
    assert site.classes["gpu"].model_dump(exclude_defaults=True) == {
        "partition": "gpu",
        "gpu_model": "a100",
    }
    assert site.classes["cpu"].partition == site.classes["light"].partition == "std"
    assert "old: left out, state DOWN" in out
    assert "theirs: left out, for the accounts physics only" in out


def test_it_looks_and_does_nothing_else(run, tmp_path):
    run()
    words = {tuple(call.split()[:2]) for call in fake_lab.calls(tmp_path / "lab")}
    assert words == {
        ("scontrol", "show"),
        ("scontrol", "-o"),
        ("sinfo", "--version"),
        ("sinfo", "--noheader"),
        ("sacctmgr", "--noheader"),
    }


def test_every_setting_is_explained(run, tmp_path):
    run()
    lines = (tmp_path / "partitions.yaml").read_text().splitlines()
    settings = [at for at, line in enumerate(lines) if line[:1].isalpha()]
    assert settings
    for at in settings:
        if lines[at] != "partitions:":
            assert lines[at - 1].startswith("#"), lines[at]
    assert max(map(len, lines[: settings[-1]])) <= 120


def test_a_second_look_keeps_what_people_wrote(run, tmp_path):
    run()
    path = tmp_path / "partitions.yaml"
    mine = path.read_text().replace("account: chemistry", "# the grant of 2026\naccount: biology")
    mine = mine.replace("# pack: 1", "pack: 8").replace("gpu_model: a100", "gpu_model: v100")
    path.write_text(mine)
    longer = fake_lab.LAB["scontrol -o show partition"].replace("1-00:00:00", "3-00:00:00")
    code, out, _ = run({"scontrol -o show partition": longer}, name="later")
    assert code == 0
    site = read_site(path)
    assert (site.account, site.pack, site.classes["gpu"].gpu_model) == ("biology", 8, "v100")
    assert site.partitions["std"].max_runtime == 4320
    assert "# the grant of 2026" in path.read_text()
    assert "facts renewed, your settings kept" in out
    changed = [line.strip() for line in out.splitlines() if line.startswith(("  -", "  +"))]
    assert [line[:1] for line in changed] == [
        "-",
        "+",
        "-",
        "+",
    ]  # the two names of the file, one row
    assert "4320" in changed[-1]


def test_nothing_new_is_not_written(run, tmp_path):
    run()
    before = (tmp_path / "partitions.yaml").stat().st_mtime_ns
    _, out, _ = run(name="again")
    assert "up to date" in out
    assert (tmp_path / "partitions.yaml").stat().st_mtime_ns == before


def test_a_file_written_by_hand_is_kept(run, tmp_path):
    path = tmp_path / "partitions.yaml"
    path.write_text(
        "account: biology  # ours\npartitions:\n  std: {max_runtime: 5}\n"
        "classes:\n  gpu: {partition: gpu, gpu_model: a100}\n"
    )
    code, _, _ = run()
    site = read_site(path)
    assert code == 0
    assert (site.account, site.classes["gpu"].gpu_model) == ("biology", "a100")
    assert site.partitions["std"].max_runtime == 1440
    assert path.read_text().count("partitions:") == 1


def test_a_file_with_mistakes_is_not_written_over(run, tmp_path):
    path = tmp_path / "partitions.yaml"
    path.write_text("acount: biology\n")
    code, _, err = run()
    assert code == 2
    assert "Did you mean 'account'?" in err
    assert path.read_text() == "acount: biology\n"


def test_printed_only(run, tmp_path):
    code, out, _ = run(out="-")
    assert code == 0
    assert "\naccount: chemistry\n" in out
    assert not (tmp_path / "partitions.yaml").exists()


def test_without_accounts_and_with_a_short_memory(run, tmp_path):
    config = fake_lab.CONFIG.replace("slurmdbd", "none").replace("300 sec", "60 sec")
    code, _, err = run({"scontrol show config": config})
    assert code == 2
    assert "forgets a finished job after 60 s" in err
    site = read_site(tmp_path / "partitions.yaml")  # to be completed
    assert (site.account, site.cluster.accounting) == (None, False)
    assert not any("sacctmgr" in call for call in fake_lab.calls(tmp_path / "lab"))


def test_a_cluster_without_gpus(run):
    only = fake_lab.partition("std", default="YES")
    code, _, err = run(
        {
            "scontrol -o show partition": only,
            "sinfo --noheader": fake_lab.nodes(("std", 8, 8000, "")),
        }
    )
    assert code == 2
    assert "std has no GPUs" in err
    assert "gpu_request: none" in err


def test_a_class_that_names_a_partition_that_went_away(run, tmp_path):
    run()
    path = tmp_path / "partitions.yaml"
    path.write_text(path.read_text().replace("cpu:   {partition: std}", "cpu:   {partition: stf}"))
    code, _, err = run(name="later")
    assert code == 2
    assert "classes.cpu.partition  'stf' is no partition. Did you mean 'std'?" in err


def test_a_group_without_a_name_is_no_obstacle(monkeypatch):
    monkeypatch.setattr(look.os, "getgroups", lambda: [0, 2**31 - 2])
    assert len(look._my_groups()) == 1


def test_no_slurm_here(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["cluster-setup", "--out", "-"]) == 2
    assert "run this on a login node" in capsys.readouterr().err


def test_times_and_gpus_as_slurm_writes_them():
    texts = ["UNLIMITED", "01:00:00", "2-00:00:00", "30:00", "1-12", "5"]
    assert [minutes(text) for text in texts] == [None, 60, 2880, 30, 2160, 5]
    assert gpus("gpu:a100:4(S:0-1),gpu:2(IDX:0,1),shard:8,gpu,gpu:h100") == {
        "a100": 4,
        "": 3,
        "h100": 1,
    }
    assert not gpus("(null)")
