# What happens around a run: who runs here, jobs that a killed run left, the watchdog, weights that must be had, the
# folder given back. No rules here. It needs of who includes it: `W`, the work folder, the package on sys.path; and
# `check_weights` does nothing where there is no `PLAN` (with `PATHS`).

import os
import time

from fewscans.cluster import hooks, preflight
from fewscans.cluster.notify import notify
from fewscans.commands import fetch
from fewscans.cost.record import remember
from fewscans.errors import UserError
from fewscans.forecast import context

# For the plan that a dry-run ends with.
context.note(workflow, W)

# What contradicts itself in the site file ends a dry-run too.
if workflow.is_main_process:
    try:
        preflight.check_parse()
    except UserError as error:
        raise WorkflowError(str(error)) from None


def check_weights():
    """Weights from outside that cannot be had end a run here, not hours later."""
    if "PLAN" not in globals():
        return
    failed = []
    for name, encoder in PLAN.encoders.items():
        written = [
            PATHS.encoder(f"{n}/{r}/all/all/all", "encoder.json")
            for n, r in PLAN.pairs
            if n == name
        ]
        if encoder.settings.source != "weights" or all(map(os.path.exists, written)):
            continue
        failure = fetch.get(encoder.settings.backbone, encoder.settings.weights or "hub")
        if failure:
            failed.append(f"encoder {name}: {failure}")
    if failed:
        hooks.end()
        raise WorkflowError("\n".join(failed))


onstart:
    try:
        preflight.check_start(workflow)
        hooks.begin(workflow, W)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    check_weights()


STARTED = time.time()


def keep_measures():
    """What the jobs of this run took, for the next plan."""
    if hasattr(globals().get("PLAN"), "config"):
        remember(PLAN, STARTED)


onsuccess:
    hooks.end()
    keep_measures()
    notify("finished", os.getcwd(), log)


onerror:
    hooks.end(failed=True)
    keep_measures()
    notify("failed", os.getcwd(), log)
