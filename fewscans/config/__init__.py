"""All settings, from one source: pydantic models here, JSON Schema and reference made from them.

`load` reads what a user wrote and says everything that is wrong with it at once.
"""

from fewscans.config.encoders import BASELINES, ENCODERS, EncoderSettings
from fewscans.config.load import load, read_config_file
from fewscans.config.models import (
    AblationSettings,
    CompareSettings,
    ComputeSettings,
    Config,
    DatasetSettings,
    ProtocolSettings,
    ReportSettings,
    ScoreSettings,
    Settings,
    ValidationSettings,
)
from fewscans.config.recipe import RecipeSettings

__all__ = [
    "BASELINES",
    "ENCODERS",
    "AblationSettings",
    "CompareSettings",
    "ComputeSettings",
    "Config",
    "DatasetSettings",
    "EncoderSettings",
    "ProtocolSettings",
    "RecipeSettings",
    "ReportSettings",
    "ScoreSettings",
    "Settings",
    "ValidationSettings",
    "load",
    "read_config_file",
]
