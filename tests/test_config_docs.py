"""Generated files are in step with the settings, and say the same as `load`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import referencing
import yaml

from fewscans.config import Config, load, reference, schema
from fewscans.config.base import Settings

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = [ROOT / "config/config.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]


def all_settings(model: type[Settings] = Settings) -> list[type[Settings]]:
    found = [*model.__subclasses__()]
    return found + [deeper for child in found for deeper in all_settings(child)]


def test_generated_files_are_in_step():
    diff = reference.differences(ROOT)
    assert not diff, f"{diff}\n\nGenerated files lag behind the settings. Run: {reference.COMMAND}"


def test_check_shows_the_diff_and_the_command_that_mends_it(tmp_path, capsys):
    assert reference.main(["--root", str(tmp_path)]) == 0
    assert reference.main(["--root", str(tmp_path), "--check"]) == 0
    settings = tmp_path / "docs" / "settings.md"
    settings.write_text(settings.read_text().replace("| `folds` |", "| `fold` |"))
    capsys.readouterr()
    assert reference.main(["--root", str(tmp_path), "--check"]) == 1
    said = capsys.readouterr().err
    assert "-| `fold` |" in said
    assert "+| `folds` |" in said
    assert "Run: make config" in said
    assert reference.main(["--root", str(tmp_path)]) == 0
    assert reference.main(["--root", str(tmp_path), "--check"]) == 0


def test_what_was_written_by_hand_is_kept(tmp_path):
    (tmp_path / "config").mkdir()
    readme = tmp_path / "config" / "README.md"
    readme.write_text(f"before\n{reference.BEGIN}\noutdated\n{reference.END}\nafter\n")
    reference.main(["--root", str(tmp_path)])
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "outdated" not in text


def test_every_setting_is_described():
    dumb = [
        f"{model.__name__}.{name}"
        for model in all_settings()
        for name, field in model.model_fields.items()
        if not field.description and name != "method"
    ]
    assert dumb == []


def test_reference_has_every_key_of_a_config():
    text = f"{reference.config_reference()}\n{reference.encoders_reference()}"
    keys = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    models = [
        Config,
        *(
            model
            for model in all_settings()
            # What a script is given is another page; files of a site and of prices are no config.
            if model.__module__.startswith("fewscans.config.")
            and model.__module__ != "fewscans.config.stages"
        ),
    ]
    hidden = {
        "EncoderSettings",
        "PretrainSettings",
        "MomentumSettings",
        "ContrastiveSettings",
        "PatchSettings",
    }  # bases; their keys stand at each method
    for model in models:
        assert set(model.model_fields) <= keys
        if model is not Config and model.__name__ not in hidden:
            assert f"### {model.__name__}\n" in text


def as_editors_do() -> jsonschema.Draft202012Validator:
    """A validator that finds the files of `config/` by the names they call each other."""
    files = {path.name: json.loads(path.read_text()) for path in ROOT.glob("config/schema*.json")}
    registry = referencing.Registry().with_resources(
        (name, referencing.Resource.from_contents(made)) for name, made in files.items()
    )
    return jsonschema.Draft202012Validator({"$ref": "schema.json"}, registry=registry)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_of_ours_pass_the_schema_and_load(path):
    raw = yaml.safe_load(path.read_text())
    jsonschema.Draft202012Validator(schema.schema()).validate(raw)
    as_editors_do().validate(raw)
    load(raw, path.name)


@pytest.mark.parametrize(
    "changes",
    [
        {"epohs": 3},
        {"budgets": ["5x"]},
        {"seed": -1},
        {"encoders": {"a": {"method": "simcrl"}}},
        {"encoders": {"a": {"method": "simclr", "temperature2": 0.1}}},
        {"encoders": {"a": {"method": "simclr", "augment": {"noise": 1}}}},
    ],
)
def test_schema_refuses_what_load_refuses(changes):
    raw = {"datasets": {"mine": {"root": "x"}}, **changes}
    assert not as_editors_do().is_valid(raw)
