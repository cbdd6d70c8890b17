"""``fewscans methods``: what an encoder's `method` may be."""

from __future__ import annotations

import argparse

from fewscans.config.encoders import ENCODERS, FAULTY

HELP = "list the methods that encoders can have, those of other packages among them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(arguments: argparse.Namespace) -> int:
    """A line for each: its name in a config, what tables call it, what it is."""
    width = max(map(len, ENCODERS))
    titles = max(len(model.title) for model in ENCODERS.values())
    for name, model in ENCODERS.items():
        top = model.module.partition(".")[0]
        source = f" [{top}]" if top not in ("", "fewscans") else ""
        said = " ".join((model.__doc__ or "").split())
        print(f"{name:{width}}  {model.title:{titles}}  {said}{source}")
    for name, why in FAULTY.items():
        print(f"{name:{width}}  cannot be used. {why}")
    return 0
