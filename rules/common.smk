# Config, paths, settings and resources for the rules; loaded once. No rules here.

import json
import os
import shlex
import sys
from pathlib import Path

# The folder of the Snakefile, also where fewscans is a module of another workflow.
ROOT = Path(str(workflow.current_basedir)).parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from fewscans import plan as planning
from fewscans.cluster.profile import IMAGE, prelude
from fewscans.cluster.site import current_site
from fewscans.config import load
from fewscans.cost.resources import RuleResources
from fewscans.digest import code_digest
from fewscans.errors import UserError
from fewscans.rawdata import check_config, chunks_of, fingerprint, layout, resolve, resolve_values

# Scripts find the package, rules the scripts and the Python that runs Snakemake, from any working directory and under
# any name of the clone. A profile may name an image: jobs then run in it, with its Python.
OWN_PYTHON = "" if IMAGE in os.environ else f"{shlex.quote(str(Path(sys.executable).parent))}:"
shell.prefix(
    prelude(current_site())
    + f"export PYTHONPATH={shlex.quote(str(ROOT))} SCRIPTS={shlex.quote(str(ROOT / 'scripts'))}"
    + f" PATH={OWN_PYTHON}$PATH; "
)
if IMAGE in os.environ:

    container: os.environ[IMAGE]


def load_plan(raw):
    """The config, checked and expanded; mistakes of the user end here, in words."""
    try:
        checked = load(raw, "config")
        expanded = planning.expand(checked)
        if workflow.is_main_process:
            check_config(expanded)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    return expanded


PLAN = load_plan(config)
CONFIG = PLAN.config
PATHS = planning.Paths(CONFIG.work, CONFIG.results)
W, R = CONFIG.work, CONFIG.results
TABLE = f"{R}/ablation_table.csv"
REPORT = f"{R}/report.html"
FIGURES = ["budget", "forest", "roc", "learning", "embeddings", "views", "reconstructions"]


def names(values):
    """Regular expression of exactly these names."""
    import re

    return "|".join(sorted(map(re.escape, values))) or "(?!)"


wildcard_constraints:
    dataset=names(CONFIG.datasets),
    recipe=names(PLAN.recipes),
    encoder=names(PLAN.encoders),
    fold="[a-z0-9]+",
    seed="[0-9]+",
    chunk="[0-9]+",


def settings(model):
    """Params as text for --params: the slice that a script uses, resolved, so that a new default counts as a change."""
    return json.dumps(model.model_dump(mode="json"), sort_keys=True)


def flag(name, keys, values):
    """A flag with KEY=VALUE arguments; nothing where there are none."""
    pairs = [f"{key}={value}" for key, value in zip(keys, values)]
    return [name, *pairs] if pairs else []


def dataset_settings(name):
    return CONFIG.datasets[name]


COST = RuleResources(PLAN, whole=workflow.is_main_process)


def cost(rule):
    """resources of a rule, by wildcards: what is asked for, and what the plan is told."""
    return COST.of(rule)
