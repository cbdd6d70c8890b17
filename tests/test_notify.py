"""The command at the end of a run."""

from __future__ import annotations

import pytest
import yaml

from fewscans.cluster import site
from fewscans.cluster.notify import notify


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Give a site this `notify` command."""

    def write(text: str | None) -> None:
        (tmp_path / "site.yaml").write_text(yaml.safe_dump({"notify": text}))
        monkeypatch.setenv(site.VARIABLE, str(tmp_path / "site.yaml"))
        site.current_site.cache_clear()

    yield write
    site.current_site.cache_clear()


def test_it_knows_how_the_run_ended(command, tmp_path):
    command(f'echo "$FEWSCANS_STATUS $FEWSCANS_FOLDER $FEWSCANS_LOG" > {tmp_path}/told')
    notify("failed", "/study", ["/study/.snakemake/log/1.log"])
    assert (tmp_path / "told").read_text() == "failed /study /study/.snakemake/log/1.log\n"


def test_none_is_no_fault(command, capfd):
    command(None)
    notify("finished", "/study", [])
    assert capfd.readouterr().err == ""


def test_a_command_that_fails_is_said(command, capfd):
    command("exit 3")
    notify("finished", "/study", [])
    assert "'exit 3' ended with exit code 3" in capfd.readouterr().err
