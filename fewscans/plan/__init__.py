"""From a config to what will be done: recipes, encoders, arms, runs and their files.

Standard library and settings only: this is computed each time that Snakemake parses the workflow.
"""

from fewscans.plan.expand import expand
from fewscans.plan.model import RULES, TITLES, Arm, Encoder, Kind, Paths, Plan, Run
from fewscans.plan.written import as_json

__all__ = [
    "RULES",
    "TITLES",
    "Arm",
    "Encoder",
    "Kind",
    "Paths",
    "Plan",
    "Run",
    "as_json",
    "expand",
]
