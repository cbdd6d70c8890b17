"""The plan: jobs from events, sums by hand, settings."""

from __future__ import annotations

import json

import pytest
from forecast_factory import cluster, event, job, local, plan

from fewscans.errors import UserError
from fewscans.forecast.jobs import Collector, from_rows, gpu_request, reason_word, to_rows
from fewscans.forecast.rates import PlanSettings, Terms, money_and_co2, read_plan_settings


def collected(*events):
    made = Collector()
    for one in events:
        made.add(one)
    return made.jobs()


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_the_graph_comes_from_files():
    jobs = collected(
        event(7, "b", input=["a.txt", "raw.csv"], output=["b.txt"]),
        event(3, "a", output=["a.txt"]),
        event(1, "all", input=["b.txt"], output=[], shellcmd=None),
    )
    assert [j.name for j in jobs] == ["a", "b"]
    assert [j.after for j in jobs] == [(), (0,)]


def test_order_and_graph_do_not_depend_on_the_order_of_events():
    events = [
        event(i, "one", wildcards={"i": str(i)}, output=[f"{i}.txt"], input=[f"{i - 1}.txt"])
        for i in range(20)
    ]
    assert collected(*events) == collected(*reversed(events))


def test_two_jobs_of_a_name_are_two_jobs():
    events = [event(i, "a", output=[f"{i}.txt"], input=["raw.csv"]) for i in range(3)]
    jobs = collected(*events, event(9, "b", input=["1.txt"]))
    assert [j.name for j in jobs] == ["a", "a", "a", "b"]
    assert jobs[3].after == (1,)
    assert collected(*reversed(events)) == jobs[:3]


def test_annotations_are_no_part_of_a_file_name():
    jobs = collected(
        event(1, "a", output=["x (pipe)"]),
        event(2, "b", input=["x (access: random)"], output=["a (1).txt"]),
    )
    assert jobs[1].after == (0,)
    assert jobs[1].folder == "."


def test_missing_and_tbd_resources_are_unknown():
    (found,) = collected(event(1, "a", resources={"mem_mb": "<TBD>", "expected_s": "<TBD>"}))
    assert (found.mem_mb, found.expected_s, found.estimate) == (None, None, "unknown")
    (found,) = collected(event(1, "a", resources={"expected_s": 60, "expected_from": "unknown"}))
    assert found.expected_s is None


def test_gpus_in_both_forms():
    assert gpu_request({"gpu": 2, "gpu_model": "a100"}) == (2, "a100")
    assert gpu_request({"gpu": 0, "gres": "gpu:a100:3"}) == (3, "a100")
    assert gpu_request({"gres": "gpu:1"}) == (1, None)
    assert gpu_request({"gres": "gpu"}) == (1, None)
    assert gpu_request({"gres": "disk:3"}) == (0, None)
    assert gpu_request({}) == (0, None)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Missing output files: a; Input files updated by another job: b", "missing"),
        ("Input files updated by another job: b", "earlier job"),
        ("Updated input files: labels.csv", "inputs"),
        ("Code has changed since last execution", "code"),
        ("Forced execution", "forced"),
        ("Params have changed since last execution: ...", "params"),
        ("", "other"),
    ],
)
def test_reasons(text, word):
    assert reason_word(text) == word


@pytest.mark.parametrize(
    ("before", "now", "word"),
    [
        ("'15d3625774bfdd71'", "'6c47151a18f194e9'", "code"),
        ("'15d3625774bfdd71','{\"level\": 1}'", "'6c47151a18f194e9','{\"level\": 2}'", "params"),
        ("'15d3625774bfdd71'", "'0123456789abcdef'", "params"),  # a digest, but of no code
        ("<nothing exclusive>", "'6c47151a18f194e9'", "params"),
    ],
)
def test_a_changed_digest_of_code_is_changed_code(before, now, word):
    text = (
        "Params have changed since last execution: Union of exclusive params before and now across "
        f"all output: before: {before} now: {now} "
    )
    made = Collector()
    made.add(event(1, "a", reason=text))
    (found,) = made.jobs(codes={"6c47151a18f194e9"})
    assert found.reason == word


def test_jobs_survive_json():
    jobs = [job(), job("pretrain", gpus=1, after=(0,))]
    assert from_rows(json.loads(json.dumps(to_rows(jobs)))) == jobs


# -- sums --------------------------------------------------------------------------------------------------------------


def test_hours_by_hand_on_a_cluster():
    jobs = [
        job("convert", expected_s=3600.0),
        job("pretrain", name="p0", expected_s=7200.0, gpus=1, cpus=4, after=(0,)),
        job("pretrain", name="p1", expected_s=3600.0, gpus=2, cpus=4, after=(0,)),
    ]
    found = plan(jobs, cluster(terms=Terms(in_job_s=360, notice_s=0, cluster_start_s=0)))
    assert found["totals"]["gpu_hours"] == pytest.approx(2.1 + 2 * 1.1)
    assert found["totals"]["cpu_hours"] == pytest.approx(1.1 + 4 * 2.1 + 4 * 1.1)
    assert found["totals"]["start_up_hours"] == pytest.approx(0.3)
    assert found["critical_path"]["rules"] == ["convert", "pretrain"]
    assert found["critical_path"]["wall_s"] == 10_800 + 720
    assert found["critical_path"]["start_up_s"] == 720
    assert found["totals"]["wall_s"] == 10_800 + 720


def test_wall_time_by_gpus():
    jobs = [job("pretrain", name=f"p{i}", gpus=1, expected_s=100.0) for i in range(8)]
    walls = plan(jobs, cluster(), gpus=3)["wall_times"]
    assert [(w["count"], w["wall_s"]) for w in walls] == [
        (1, 800), (2, 400), (3, 300), (4, 200), (8, 100),
    ]  # fmt: skip


def test_too_few_gpus_for_a_job_is_said():
    walls = plan([job("pretrain", gpus=4)], cluster())["wall_times"]
    assert [w["wall_s"] for w in walls] == [None, None, 60.0, 60.0]


def test_without_cards_cores_are_compared():
    jobs = [job("pretrain", name=f"p{i}", gpus=1) for i in range(4)]
    found = plan(jobs, local(cores=2))
    assert [(w["kind"], w["count"], w["wall_s"]) for w in found["wall_times"]][:3] == [
        ("cores", 1, 240), ("cores", 2, 120), ("cores", 4, 60),
    ]  # fmt: skip
    assert found["totals"]["gpu_hours"] == 0
    assert found["totals"]["peak_gpus"] == 0
    assert found["totals"]["wall_s"] == 120


def test_cards_of_this_machine_bound_its_jobs():
    jobs = [job("pretrain", name=f"p{i}", gpus=1) for i in range(4)]
    found = plan(jobs, local(cores=64, gpus=2))
    assert found["totals"]["wall_s"] == 120
    assert found["totals"]["peak_gpus"] == 2


def test_unknown_is_counted():
    found = plan([job(), job("report", expected_s=None, estimate="unknown", output_mb=None)])
    assert found["totals"]["jobs_of_unknown_length"] == 1
    assert found["disk"]["jobs_of_unknown_size"] == 1
    assert found["rules"][1]["estimates"] == {"unknown": 1}
    assert any("1 job of unknown length" in text for text in found["advice"])


def test_packed_jobs_share_a_submission():
    jobs = [job("finetune", name=f"f{i}", gpus=1, expected_s=60.0) for i in range(10)]
    terms = Terms(in_job_s=40, notice_s=0, cluster_start_s=0)
    single, packed = plan(jobs, cluster(terms=terms)), plan(jobs, cluster(terms=terms, pack=4))
    assert (single["totals"]["submissions"], packed["totals"]["submissions"]) == (10, 3)
    assert single["totals"]["start_up_hours"] == pytest.approx(400 / 3600, abs=1e-6)
    assert packed["totals"]["start_up_hours"] == pytest.approx(120 / 3600, abs=1e-6)
    assert packed["totals"]["wall_s"] == 4 * 60 + 40


def test_exclusive_nodes_are_billed_whole():
    jobs = [job("pretrain", gpus=1, expected_s=3600.0), job("convert", expected_s=3600.0)]
    found = plan(jobs, cluster(exclusive_nodes=True))
    assert found["totals"]["gpu_hours"] == 4
    assert found["totals"]["cpu_hours"] == 32 + 16


def test_worst_case_is_every_limit_on_every_try():
    found = plan([job("pretrain", gpus=2, cpus=3, runtime_min=60)], cluster(retries=2))
    assert found["worst_case"] == {
        "tries": 3, "gpu_hours": 6.0, "cpu_hours": 9.0, "jobs_without_limit": 0,
    }  # fmt: skip


def test_disk_at_the_fullest_moment():
    jobs = [
        job("pretrain", name=f"p{i}", output_mb=10.0, scratch_mb=100.0, gpus=1) for i in range(4)
    ]
    assert plan(jobs, local(cores=1))["disk"]["peak_mb"] == 140
    assert plan(jobs, local(cores=4))["disk"]["peak_mb"] == 440
    found = plan(jobs, local(cores=4))
    assert found["disk"]["total_mb"] == 40
    assert found["now"][0]["needed_mb"] == 440


def test_money_and_co2_by_hand():
    settings = PlanSettings.model_validate(
        {
            "rates": {
                "gpu_hour": 2, "cpu_hour": 0.1, "gpu_watts": 500, "cpu_watts": 5,
                "overhead": 1.2, "co2_g_per_kwh": 400,
            }
        }
    )  # fmt: skip
    found = money_and_co2(settings.rates, 10, 40)
    assert found["money"] == pytest.approx(24)
    assert found["energy_kwh"] == pytest.approx((5 + 0.2) * 1.2)
    assert found["co2_kg"] == pytest.approx(6.24 * 0.4)
    assert set(money_and_co2(PlanSettings().rates, 1, 1).values()) == {None}


def test_over_budget():
    jobs = [job("pretrain", gpus=1, expected_s=7200.0)]
    found = plan(jobs, cluster(), budget={"gpu_hours": 1.5, "cpu_hours": 5})
    assert [o["what"] for o in found["over_budget"]] == ["gpu_hours"]


def test_the_plan_is_plain_and_stable():
    jobs = [job(), job("pretrain", gpus=1, after=(0,))]
    one, two = (json.dumps({**plan(jobs, cluster()), "now": 0}, sort_keys=True) for _ in range(2))
    assert one == two
    assert json.loads(one)["schema_version"] == 1


def test_an_empty_plan():
    found = plan([])
    assert found["totals"]["jobs"] == 0
    assert found["totals"]["wall_s"] == 0
    assert found["problems"] == []


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEWSCANS_PLAN", raising=False)
    assert read_plan_settings() == PlanSettings()
    (tmp_path / "config").mkdir()
    (tmp_path / "config/plan.yaml").write_text("rates: {gpu_hour: 1.5}\n")
    assert read_plan_settings().rates.gpu_hour == 1.5
    (tmp_path / "other.yaml").write_text("rates: {gpu_our: 1}\nbudget: {money: -3}\n")
    with pytest.raises(UserError, match="2 problems") as caught:
        read_plan_settings("other.yaml")
    assert "Did you mean 'gpu_hour'" in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_plan_settings("none.yaml")


def test_trials_that_a_search_submits_are_counted():
    seen = Collector()
    seen.add(event(1, "tune", resources={"expected_s": 60, "gpu": 0, "trial_gpu_s": 7200}))
    (found,) = seen.jobs()
    assert found.inner_gpu_s == 7200
    assert plan([found], cluster())["totals"]["gpu_hours"] == pytest.approx(2)
