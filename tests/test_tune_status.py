"""A search seen from outside, and what it found as a piece of config."""

from __future__ import annotations

import json

import pytest
from labelled_factory import make_tiny
from tune_factory import Place, make_params

from fewscans.config.stages import TuneParams
from fewscans.tune import journal, status


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def place(tmp_path, tiny, script) -> Place:
    return Place(tmp_path, tiny, script)


def test_status_of_a_running_and_of_a_finished_search(place, capsys):
    from fewscans.__main__ import main

    params = TuneParams.model_validate(make_params(trials=5))
    folder = place.root / "work/tune/scratch/small/tiny/0/0123"
    folder.mkdir(parents=True)
    study = journal.open_journal(folder / "journal.log", params)
    for name, value in {"trials": 5, "parallel": 2, "encoder": "scratch", "recipe": "small",
                        "dataset": "tiny", "fold": "0"}.items():  # fmt: skip
        study.set_user_attr(name, value)
    for number, result in enumerate([
        {"state": "complete", "value": 0.5, "seconds": 60.0},
        {"state": "pruned", "seconds": 30.0},
        None,
    ]):  # fmt: skip
        journal.propose(study, params, number)
        home = status.trial_folder(folder, number)
        home.mkdir(parents=True)
        (home / "job.json").write_text("{}" if result else '{"id": "7"}')
        if result:
            (home / "result.json").write_text(json.dumps(result))
    before = (folder / "journal.log").read_bytes()
    assert main(["tune-status", str(place.root / "work")]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("scratch small tiny 0"))
    assert row.split()[4:10] == ["1", "1", "0", "1", "0", "2"]
    assert "0.5000" in row
    assert "best so far, trial 0: protocol.lr 0.001" in said
    assert (folder / "journal.log").read_bytes() == before
    assert main(["tune-status", str(place.root / "nothing")]) == 2


def test_values_found_as_a_piece_of_config(place, capsys):
    from fewscans.__main__ import main

    assert place.search(make_params("simclr"), "work/tune/simclr/small/tiny/0") == 0
    capsys.readouterr()
    assert main(["tune-status", str(place.root / "work"), "--write-config"]) == 0
    said = capsys.readouterr().out
    import yaml

    values = place.best("work/tune/simclr/small/tiny/0")["values"]
    given = {name.partition(".")[2]: value for name, value in values.items()}
    assert yaml.safe_load(said)["encoders"]["simclr"] == given
