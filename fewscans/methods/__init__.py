"""Self-supervised methods by name. No torch here: a method's module is imported when it is asked for.

To add one: a file here, its settings in `fewscans.config.encoders`, a line in `METHODS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewscans.methods.base import Method

METHODS: dict[str, str] = {
    "barlow": "fewscans.methods.barlow",
    "byol": "fewscans.methods.byol",
    "mae": "fewscans.methods.mae",
    "mocov3": "fewscans.methods.mocov3",
    "simclr": "fewscans.methods.simclr",
    "simmim": "fewscans.methods.simmim",
    "simsiam": "fewscans.methods.simsiam",
    "vicreg": "fewscans.methods.vicreg",
}


def load(name: str) -> type[Method]:
    """Class of the method `name`; each module calls its own ``METHOD``."""
    return importlib.import_module(METHODS[name]).METHOD
