"""How encoder weights come to be: baselines that nothing is pretrained for, and self-supervised methods.

The registry: the classes here, and those of other packages that name theirs by an entry point of the group
``fewscans.methods``. A class says what its method is called, which module trains it (`module`), and all its settings;
everything else follows: config, schema, reference, help, jobs, digests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from fewscans.config.encoders.base import EncoderSettings, PretrainSettings
from fewscans.config.encoders.baselines import Imagenet, Majority, Random, Scratch, ScratchLong
from fewscans.config.encoders.contrastive import Micle, MocoV2, MocoV3, Simclr, Supcon
from fewscans.config.encoders.following import Byol, Dino
from fewscans.config.encoders.joint import Barlow, Simsiam, Vicreg
from fewscans.config.encoders.masked import Genesis, Mae, Simmim, Spark
from fewscans.config.encoders.multimodal import Contig
from fewscans.config.encoders.outside import FAULTY, from_outside
from fewscans.config.encoders.pretext import Exemplar, Jigsaw, RelativeLocation, Rotation

__all__ = [
    "BASELINES", "ENCODERS", "FAULTY", "METHODS", "AnyEncoder", "EncoderSettings", "PretrainSettings", "ScratchLong",
]  # fmt: skip

# A line each; in this order tables of settings show them.
_OURS: tuple[type[EncoderSettings], ...] = (
    Majority, Random, Scratch, ScratchLong, Imagenet,
    Simclr, Micle, MocoV2, MocoV3, Supcon, Contig,
    Byol, Dino,
    Simsiam, Barlow, Vicreg,
    Mae, Simmim, Spark, Genesis,
    Rotation, Jigsaw, RelativeLocation, Exemplar,
)  # fmt: skip
ENCODERS: dict[str, type[EncoderSettings]] = {model.name(): model for model in _OURS}
ENCODERS.update(from_outside(ENCODERS))
METHODS: dict[str, type[PretrainSettings]] = {
    name: model for name, model in ENCODERS.items() if issubclass(model, PretrainSettings)
}
BASELINES = tuple(name for name in ENCODERS if name not in METHODS)

if TYPE_CHECKING:
    AnyEncoder = EncoderSettings
else:
    AnyEncoder = Annotated[Union[tuple(ENCODERS.values())], Field(discriminator="method")]  # noqa: UP007
