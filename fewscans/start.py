"""Where the weights of a pretraining start: another encoder, of which it is the next stage, or a file of weights.

Who was seen on the way is handed on: an encoder's parents stand in its encoder.json, and whoever uses it makes sure
that none of them has seen a test scan.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from fewscans import networks
from fewscans.errors import UserError
from fewscans.files import sha256_file
from fewscans.labelled import check_not_seen
from fewscans.shape import Shape

log = logging.getLogger("fewscans")

ENCODER, WEIGHTS = "encoder.json", "encoder.safetensors"
# What an encoder says of its parents: what they are, and whom they have seen.
HANDED_ON = (
    "name", "method", "dataset", "fold", "seed", "digest", "transductive", "source_scans", "fitted", "parents",
    "weights_from", "handed_on",
)  # fmt: skip


@dataclass(frozen=True)
class Start:
    """Weights to start from, and what is known of them (`facts`; nothing but a name where they come from outside)."""

    file: Path
    facts: dict[str, Any]
    digest: str

    @classmethod
    def open(cls, path: Path) -> Start:
        """An encoder's folder, or a file of weights (.safetensors, .pth).

        Raises
        ------
        UserError
            There is none of both.
        """
        if path.is_dir():
            try:
                facts = json.loads((path / ENCODER).read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise UserError(
                    f"{path}: no encoder here to start from ({ENCODER} is missing)."
                ) from None
            handed_on = {key: facts[key] for key in HANDED_ON if key in facts}
            return cls(path / WEIGHTS, handed_on, str(facts["digest"]))
        if not path.is_file():
            raise UserError(f"{path}: no such file or encoder to start from. Correct `start`.")
        digest = sha256_file(path)[:16]
        return cls(path, {"name": path.name, "method": "weights", "digest": digest}, digest)

    def check(self, folds: Path, fold: str, transductive: bool) -> None:
        """Refuse a start that has seen the test groups of `fold`.

        Raises
        ------
        UserError
            It has, or is transductive where this encoder does not say so.
        """
        if transductive:
            return
        if "transductive" in check_not_seen(self.facts, self.file.parent, folds, fold):
            raise UserError(
                f"{self.file.parent}: has seen test scans (`transductive: true`). What starts from it must say the"
                " same."
            )

    def make(self, backbone: str, shape: Shape, patch_size: int | None) -> nn.Module:
        """The network with these weights.

        Raises
        ------
        UserError
            They are those of another network.
        """
        if self.facts["method"] in ("weights", "imagenet"):
            return networks.load_pretrained(backbone, self.file, shape, patch_size=patch_size)
        encoder, meta = networks.load_encoder(self.file.parent, shape)
        found = meta["network"]["backbone"]
        if found != backbone:
            raise UserError(
                f"{self.file.parent}: is a {found}, and what starts from it a {backbone}. Give both one `backbone`."
            )
        return encoder

    def hand_on(self, parts: dict[str, nn.Module]) -> None:
        """Let `parts` of a method go on from those that stand beside these weights, where they are of one shape."""
        for name in parts.keys() & set(self.facts.get("handed_on", ())):
            state = load_file(self.file.parent / f"{name}.safetensors")
            own = parts[name].state_dict()
            if {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in own.items()}:
                parts[name].load_state_dict(state)
                log.info("%s goes on from that of %s", name, self.facts["name"])
