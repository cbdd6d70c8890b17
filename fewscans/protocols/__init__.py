"""How labels are used. A protocol is one module here: `run(task, settings, source) -> Outcome`.

Adding one: a module, its settings in `config/models.py`, a line below. Nothing is imported before
`load` is called, so that a protocol without images (`prior`) never waits for torch.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from fewscans.errors import UserError, did_you_mean

# Name -> module; also read by `digest.code_digest`, which hashes only the entries asked for.
PROTOCOLS = {
    "prior": "fewscans.protocols.prior",
    "linear": "fewscans.protocols.linear",
    "knn": "fewscans.protocols.knn",
    "finetune": "fewscans.protocols.finetune",
}
# What a protocol takes from its `source`: nothing, frozen embeddings, or pixels and weights.
NEEDS = {"prior": "nothing", "linear": "features", "knn": "features", "finetune": "weights"}


def load(name: str) -> ModuleType:
    """Module of the protocol `name`; a UserError where there is none."""
    if name not in PROTOCOLS:
        raise UserError(f"'{name}' is not a protocol.{did_you_mean(name, PROTOCOLS)}")
    return import_module(PROTOCOLS[name])
