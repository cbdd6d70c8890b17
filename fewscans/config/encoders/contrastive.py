"""Methods that tell scans apart."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fewscans.config.encoders.base import PretrainSettings
from fewscans.config.encoders.following import MomentumSettings


class ContrastiveSettings(PretrainSettings):
    """What methods with negatives have: who attracts, and who does not repel."""

    views: ClassVar[int] = 2

    temperature: float = Field(default=0.2, gt=0, le=10)
    """Of the similarities; small ones look at the nearest negatives alone."""
    positives: Literal["self", "patient", "neighbour"] = "self"
    """Of whom the second view is: the scan itself, another scan of its patient, or the slice next to it. A scan without
    others stands for itself."""
    spare_patient: bool | None = None
    """Whether an image's own patient is never a negative. Without it: where positives are other scans of the patient,
    since those are then both; else not, as in the papers, which know of no patients and need none. Worth a try where
    patients have many scans: the more of a batch is of one patient, the more of its negatives are false."""

    @property
    def spares(self) -> bool:
        """Whether an image's own patient is never a negative."""
        return self.positives != "self" if self.spare_patient is None else self.spare_patient

    def wants(self) -> tuple[str, ...]:
        """Patients, where they matter."""
        return ("patient",) if self.spares or self.positives != "self" else ()


class Simclr(ContrastiveSettings):
    """SimCLR: two views of a scan attract, all others repel (Chen et al. 2020)."""

    method: Literal["simclr"] = "simclr"
    title: ClassVar[str] = "SimCLR"
    module: ClassVar[str] = "fewscans.methods.simclr"
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Temperature of NT-Xent (section 2.1); 0.5 and below serve small batches."""
    projector_dim: int = Field(default=128, ge=2, le=65_536)
    """Output of the projection head."""
    projector_hidden: int | None = Field(default=None, ge=2, le=65_536)
    """Hidden width of the head; without it the encoder's own."""


class Micle(Simclr):
    """MICLe: SimCLR between images of one patient, to go on with after SimCLR (Azizi et al. 2021)."""

    method: Literal["micle"] = "micle"  # type: ignore[assignment]
    title: ClassVar[str] = "MICLe"
    module: ClassVar[str] = "fewscans.methods.micle"
    positives: Literal["self", "patient", "neighbour"] = "patient"
    """Of whom the second view is (section 3.2: another image of the patient)."""


class Supcon(PretrainSettings):
    """SupCon: scans of one class attract, a reference that sees all training labels (Khosla et al. 2020)."""

    method: Literal["supcon"] = "supcon"
    title: ClassVar[str] = "SupCon"
    module: ClassVar[str] = "fewscans.methods.supcon"
    views: ClassVar[int] = 2
    temperature: float = Field(default=0.1, gt=0, le=10)
    """Temperature (section 4: 0.1)."""
    projector_dim: int = Field(default=128, ge=2, le=65_536)
    """Output of the projection head (section 3.1)."""
    projector_hidden: int | None = Field(default=None, ge=2, le=65_536)
    """Hidden width of the head; without it the encoder's own (section 3.1)."""

    def wants(self) -> tuple[str, ...]:
        """Labels of the training fold."""
        return ("target",)


class MocoV2(ContrastiveSettings):
    """MoCo v2: find the other view's key among those of earlier steps (He et al. 2020; Chen et al. 2020)."""

    method: Literal["mocov2"] = "mocov2"
    title: ClassVar[str] = "MoCo v2"
    module: ClassVar[str] = "fewscans.methods.mocov2"
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Temperature of InfoNCE (Chen et al. 2020, section 3)."""
    queue: int | None = Field(default=None, ge=2, le=1_048_576)
    """Keys of earlier steps that queries are told from; without it the paper's 65,536, or where data are fewer as many
    whole batches as an epoch has besides the present one: a longer queue would repeat the same scans."""
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Of the key network, constant. Without it the paper's 0.999, less where there are few steps: it then remembers a
    twentieth of them."""
    projector_dim: int = Field(default=128, ge=2, le=65_536)
    """Output of the projection head."""
    projector_hidden: int | None = Field(default=None, ge=2, le=65_536)
    """Hidden width of the head; without it the encoder's own."""


class MocoV3(ContrastiveSettings, MomentumSettings):
    """MoCo v3: find the other view's key, made by a slowly following network, in the batch (Chen, Xie & He 2021)."""

    method: Literal["mocov3"] = "mocov3"
    title: ClassVar[str] = "MoCo v3"
    module: ClassVar[str] = "fewscans.methods.mocov3"
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Temperature of InfoNCE (section 4.1)."""
