"""Memory and disk of a job, from numbers of scans and settings. MB are 10^6 bytes on disk, 2^20 in memory."""

from __future__ import annotations

from fewscans.config import RecipeSettings
from fewscans.config.backbones import INFLATED, flat_name, seen_pixels

# Millions of weights and length of an embedding; what is not listed is taken for a network of 25 million.
NETWORKS: dict[str, tuple[float, int]] = {
    "none": (0.0, 0),
    "test_resnet": (0.4, 96),
    "test_vit": (0.3, 64),
    "resnet10t": (4.9, 512),
    "resnet18": (11.2, 512),
    "resnet34": (21.3, 512),
    "resnet50": (23.5, 2048),
    "vit_tiny_patch16_224": (5.5, 192),
    "vit_small_patch16_224": (21.7, 384),
    "vit_base_patch16_224": (85.8, 768),
    "vgg11": (128.8, 4096),
    "vgg16": (134.3, 4096),
    "densenet121": (7.0, 1024),
    "densenet169": (12.5, 1664),
    "convnext_tiny": (27.8, 768),
    "efficientnet_b0": (4.0, 1280),
    "swin_tiny_patch4_window7_224": (27.5, 768),
}
UNKNOWN = (25.0, 768)
# A process: interpreter and tables; with torch, networks and protocols; with CUDA's context.
PLAIN_MB, TORCH_MB, CUDA_MB = 200, 560, 3000
# The job's own Snakemake, twice, on a cluster.
SNAKEMAKE_MB = 300
MARGIN = 1.3
FLOOR_MB = 500
# Float images that a training keeps of one image of its own size, on the processor; measured for the demo's networks.
KEPT_IMAGES = {"test_resnet": 100, "test_vit": 40}
MOST_KEPT_IMAGES = 200
# Weights of a network with what a method adds to it, over its own; thrown away with the checkpoint.
HEADS = 1.25
# Checkpoints of a training: the last one, the next until it is whole and takes its place, and the last sound state.
CHECKPOINTS = 3
# Scans as they were delivered: 512 x 512 of 16 bits.
NATIVE_MB = 0.55
MB = 1e6


def weights(backbone: str) -> tuple[float, int]:
    """(millions of weights, length of an embedding)."""
    millions, length = NETWORKS.get(flat_name(backbone), UNKNOWN)
    # Kernels of 3 x 3 become 3 x 3 x 3; those of 1 x 1, which a bottleneck has too, stay.
    return (3 * millions if backbone.startswith(INFLATED) else millions), length


def store_mb(scans: int, recipe: RecipeSettings) -> float:
    """Of a store in 16 bits (8 bits where the scans have no more: then half)."""
    return scans * recipe.shape.pixels * 2 / MB


def training_mb(
    backbone: str, recipe: RecipeSettings, images: float, scans: int, device: str
) -> float:
    """Memory of a training with `images` images in a step (views counted) and `scans` scans at hand.

    Weights count five times (gradients, two moments, a copy on the way to a checkpoint); on a GPU what a step keeps is
    none of the host's business.
    """
    kept = KEPT_IMAGES.get(flat_name(backbone), MOST_KEPT_IMAGES)
    pixels = recipe.channels * seen_pixels(backbone, recipe.seen.size, recipe.ndim)
    step = 0.0 if device == "cuda" else images * pixels * 4 * kept / MB
    base = CUDA_MB if device == "cuda" else TORCH_MB
    return base + step + 20 * weights(backbone)[0] + 2.5 * store_mb(scans, recipe)


def encoder_mb(backbone: str) -> float:
    """Files of one encoder; those in the cache are the same ones, linked."""
    return 4 * weights(backbone)[0] + 0.3


def checkpoint_mb(backbone: str) -> float:
    """One file of training state: weights, heads included, and two moments of each (AdamW), 4 bytes a number."""
    return HEADS * 3 * 4 * weights(backbone)[0] + 0.3


def predictions_mb(runs: int, tested: int, labelled: int) -> float:
    """Predictions of a job: a row per run and scan; twice, since the cache keeps each run."""
    return 2 * 15e-6 * runs * (tested + labelled) + 0.02


def embeddings_mb(scans: int, backbone: str) -> float:
    """Half floats per scan, and as many full floats in the cache."""
    return scans * weights(backbone)[1] * (2 + 4) / MB + 0.01


def rounded(mb: float) -> int:
    """Whole hundreds, upwards."""
    return -int(-mb // 100) * 100
