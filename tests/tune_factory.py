"""Searches of seconds on a tiny data set, with trials in this process."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd

from fewscans.contracts import read_table
from fewscans.files import write_json
from fewscans.tune import status

ROOT = Path(__file__).parent.parent
LR = {"low": 1e-4, "high": 1e-1, "log": True}
FINETUNE = {"protocol": "finetune", "protocol_settings": {"lr": LR}}


def make_params(kind: str = "scratch", **more) -> dict:
    """Params of a search of seconds, as JSON has them."""
    shared = {
        "encoder": kind,
        "recipe": {"size": 16},
        "recipe_name": "small",
        "dataset": "tiny",
        "fold": "0",
        "trials": 3,
        "parallel": 2,
        "max_steps": 100,
    }
    if kind == "scratch":
        shared |= {
            "settings": {"method": "scratch", "backbone": "test_resnet"},
            "arm": FINETUNE,
            "protocol_settings": {"finetune": {"steps": 2, "batch_size": 4}},
        }
    else:
        shared |= {
            "settings": {"method": kind, "backbone": "test_resnet", "epochs": 4, "batch_size": 8},
            "arm": {"encoder": {"lr": LR, "temperature": {"choices": [0.1, 0.5]}}},
            "protocol_settings": {},
        }
    return {**shared, **more}


class Place:
    """Files of a tiny data set, and the command line of a search on them."""

    def __init__(self, root: Path, data: dict[str, Path], script) -> None:
        self.root, self.data, self.script = root, dict(data), script

    def arguments(self, params: dict, out: str = "out") -> list[str]:
        files = [
            text
            for name in ("store", "labels", "folds", "budgets")
            for text in (f"--{name}", str(self.data[name]))
        ]
        return ["--params", json.dumps(params), *files, "--out", str(self.root / out)]

    def search(self, params: dict, out: str = "out", launcher=None) -> int:
        """Lead a search whose trials run in this process, one after the other."""
        module = self.script("tune")
        arguments = self.arguments(params, out)
        module.make_launcher = lambda *_: launcher or Here(module, arguments)
        return module.main(arguments)

    def best(self, out: str = "out") -> dict:
        return json.loads((self.root / out / "best.json").read_text())

    def trials(self, out: str = "out") -> pd.DataFrame:
        return read_table(self.root / out / "trials.parquet", "trials").drop(columns="seconds")

    def journal(self, out: str = "out") -> Path:
        (found,) = (self.root / out).glob("*/journal.log")
        return found


class Here:
    """A launcher whose trials run when it is asked which live; `order` says in which order."""

    poll_s = 0.0

    def __init__(self, module, arguments: list[str], slots: int = 8, order: int = 1) -> None:
        self.module, self.arguments, self.slots, self.order = module, arguments, slots, order
        self.started: list[int] = []
        self.waiting: list[int] = []

    def start(self, number, command, folder) -> None:
        self.started.append(number)
        write_json(folder / status.JOB, {**status.read_job(folder), "started": time.time()})
        self.waiting.append(number)

    def living(self, folders):
        for number in self.waiting[:: self.order]:
            self.module.main([*self.arguments, "--trial", str(number)])
        self.waiting.clear()
        return set()

    def cancel(self, folders) -> None:
        pass
