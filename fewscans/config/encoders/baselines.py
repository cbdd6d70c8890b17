"""Encoders that nothing is pretrained for, or that come from outside."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fewscans.config.encoders.base import EncoderSettings


class Majority(EncoderSettings):
    """No image at all: class frequencies of the labelled scans, so that a constant predictor is seen for what it is."""

    method: Literal["majority"] = "majority"
    title: ClassVar[str] = "majority"
    backbone: str = "none"
    """Not used."""
    protocols: ClassVar[tuple[str, ...]] = ("prior",)


class Random(EncoderSettings):
    """Frozen and untrained; batch-norm statistics are set from the training fold."""

    method: Literal["random"] = "random"
    title: ClassVar[str] = "random, frozen"
    protocols: ClassVar[tuple[str, ...]] = ("linear", "knn")


class Scratch(EncoderSettings):
    """Supervised from random weights."""

    method: Literal["scratch"] = "scratch"
    title: ClassVar[str] = "scratch"
    protocols: ClassVar[tuple[str, ...]] = ("finetune",)


class ScratchLong(EncoderSettings):
    """Supervised from random weights, with the steps of pretraining on top of those of fine-tuning."""

    method: Literal["scratch-long"] = "scratch-long"
    title: ClassVar[str] = "scratch, long"
    extra_steps: int | None = Field(default=None, ge=1)
    """Steps beyond `finetune.steps`; without it as many as the longest pretraining with this backbone and recipe."""
    protocols: ClassVar[tuple[str, ...]] = ("finetune",)


class Imagenet(EncoderSettings):
    """timm's pretrained weights, from the hub or from a local file."""

    method: Literal["imagenet"] = "imagenet"
    title: ClassVar[str] = "ImageNet"
    weights: str | None = None
    """Local file (.safetensors, or .pth read with weights_only); without it the hub is asked, once, before any job."""
    source: ClassVar[str] = "weights"
