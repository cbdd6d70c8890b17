"""Commands take the config of a run as snakemake does."""

import argparse

import pytest

from fewscans.__main__ import main
from fewscans.commands import COMMANDS, run_config
from fewscans.errors import UserError

CONFIG = """
datasets:
  p: {phantom: {n_patients: 20}}
recipes:
  px16: {size: 16}
encoders:
  one: {method: simclr, backbone: test_resnet, epochs: 3}
"""


def read(*words):
    parser = argparse.ArgumentParser()
    run_config.add_arguments(parser)
    return run_config.read(parser.parse_args(words))


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(CONFIG)
    (tmp_path / "more.yaml").write_text("encoders: {one: {epochs: 7}}\nwork: elsewhere\n")


def test_a_later_file_adds_to_an_earlier_and_single_settings_to_both():
    found = read(
        "--configfile", "my.yaml", "more.yaml", "--config", "work=here", "baselines=[majority]"
    )
    assert found.encoders["one"].epochs == 7
    assert found.encoders["one"].backbone == "test_resnet"
    assert (found.work, found.baselines) == ("here", ["majority"])


def test_without_a_file_it_is_the_one_that_snakemake_reads(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(CONFIG + "work: usual\n")
    assert read().work == "usual"


def test_what_is_no_setting_is_said_in_words():
    with pytest.raises(UserError, match=r"--config: .*name=value.*'my.yaml'"):
        read("--configfile", "my.yaml", "--config", "my.yaml")


@pytest.mark.parametrize("command", ["plan", "calibrate", "fetch", "doctor"])
def test_a_shortened_flag_is_not_taken_for_another(command, capsys):
    assert command in COMMANDS
    with pytest.raises(SystemExit) as stopped:
        main([command, "--configf", "my.yaml"])
    assert stopped.value.code == 2
    assert "--configf" in capsys.readouterr().err
