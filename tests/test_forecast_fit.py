"""What will not fit is found before anything is submitted, and said in words."""

from __future__ import annotations

import pytest
from forecast_factory import SITE, cluster, job, local, plan


def stopping(found):
    return [p["text"] for p in found["problems"] if p["stops"]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime_min": 2880}, "asks for 2 days; partition gpu allows 24 h"),
        ({"mem_mb": 65_000}, "asks for 65 GB of memory; nodes of gpu have 64 GB"),
        ({"gpus": 5}, "asks for 5 GPUs on a node; nodes of gpu have 4"),
        ({"cpus": 33}, "asks for 33 cores on a node; nodes of gpu have 32"),
        ({"gpus": 9, "nodes": 3}, "asks for 3 nodes; gpu has 2 nodes"),
        ({"gpu_model": "h100"}, "asks for GPU model 'h100'; partition gpu has a100"),
        ({"partition": "cpu"}, "asks for 1 GPU; partition cpu has none"),
        ({"partition": "big"}, "goes to partition 'big', which is not in the site file"),
    ],
)
def test_requests_that_no_node_can_meet(changes, words):
    found = plan([job("pretrain", **{"gpus": 1, **changes})], cluster())
    assert any(words in text for text in stopping(found)), found["problems"]


def test_what_fits_is_no_problem():
    jobs = [job("pretrain", gpus=8, nodes=2, cpus=64), job("convert"), job("folds")]
    assert plan(jobs, cluster())["problems"] == []


def test_jobs_longer_than_their_limit():
    killed = plan([job("aggregate", expected_s=4000.0)], cluster())
    assert "it would be killed" in stopping(killed)[0]
    assert not killed["problems"][0]["waits_for_ever"]
    goes_on = plan([job("pretrain", gpus=1, expected_s=4000.0)], cluster())
    assert not stopping(goes_on)
    assert "continued, 2 starts" in goes_on["problems"][0]["text"]
    slow = plan([job("aggregate", expected_s=3000.0, expected_p95_s=4000.0)], cluster())
    assert not stopping(slow)
    assert "one in twenty" in slow["problems"][0]["text"]


def test_same_problems_are_counted_not_repeated():
    jobs = [job("pretrain", name=f"p{i}", gpus=5) for i in range(300)]
    (found,) = plan(jobs, cluster())["problems"]
    assert found["jobs"] == 300
    assert found["waits_for_ever"]


def test_more_jobs_in_flight_than_the_queue_takes():
    found = plan([job()], cluster(slots=100, cluster={"max_submit_jobs": 20}))
    assert "this cluster queues 20" in found["problems"][0]["text"]


def test_several_models_in_a_partition():
    site = {**SITE["partitions"], "gpu": {**SITE["partitions"]["gpu"], "gpu_models": ["a", "b"]}}
    found = plan([job("pretrain", gpus=1)], cluster(partitions=site))
    assert "may get any of a, b" in found["problems"][0]["text"]
    assert not plan([job("pretrain", gpus=1, gpu_model="b")], cluster(partitions=site))["problems"]


def test_on_this_machine():
    found = plan([job("pretrain", gpus=3, cpus=9, mem_mb=10**9)], local(cores=4, gpus=2))
    assert "this machine has 2" in stopping(found)[0]
    assert {p["kind"] for p in found["problems"]} == {"gpus", "cores", "memory"}


def test_no_space_is_a_problem(tmp_path):
    found = plan([job(output_mb=1e12, output_files=3, folder=str(tmp_path / "new/work"))])
    assert "are free there" in stopping(found)[0]


def test_packed_limits_are_added():
    jobs = [job("finetune", name=f"f{i}", gpus=1, runtime_min=600) for i in range(8)]
    found = plan(jobs, cluster(pack=4))
    assert "4 packed together ask for 40 h; partition gpu allows 24 h" in stopping(found)[0]
    assert not plan(jobs, cluster(pack=2))["problems"]
