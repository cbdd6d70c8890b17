"""Self-supervised methods: one file each, imported when it is asked for; no torch here.

To add one here: a file, its settings in `fewscans.config.encoders`, and a line in the registry there. To add one from
another package: `fewscans.config.encoders.outside`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fewscans.config.encoders import METHODS

if TYPE_CHECKING:
    from fewscans.methods.base import Method


def load(name: str) -> type[Method]:
    """Class of the method `name`; each module calls its own ``METHOD``."""
    return importlib.import_module(METHODS[name].module).METHOD
