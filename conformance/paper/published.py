"""What the paper prints (TinyFormer, arXiv:2311.01759v3, section IV); sizes in KB and MB as printed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    """A row of Table II.

    Attributes:
        model: as the paper calls it.
        memory: peak, as printed; a star is beyond the STM32F746.
        storage: as printed.
        accuracy: on CIFAR-10, per cent, int8.
    """

    model: str
    memory: str
    storage: str
    accuracy: float


TABLE_II = {
    "tinyformer-300k": Resource("TinyFormer-300K", "300 KB", "0.91 MB", 96.10),
    "tinyformer-120k": Resource("TinyFormer-120K", "120 KB", "0.94 MB", 94.52),
    "mobilenetv2": Resource("MobileNetV2", "416 KB*", "2.13 MB*", 94.61),
    "cct-7-3x1": Resource("CCT-7/3x1", "512 KB*", "3.52 MB*", 95.72),
    "mobilevit-xs": Resource("MobileViT-XS", "160 KB", "1.91 MB*", 90.11),
    "mobilevitv2-0.75": Resource("MobileViTV2-0.75", "172 KB", "3.48 MB*", 91.30),
    "mcunet-in3": Resource("MCUNet-in3", "22 KB", "0.89 MB", 84.26),
}
"""By the `row` of cards."""


@dataclass(frozen=True)
class Ablation:
    """A row of Table III: accuracy in per cent, effective weights in thousands, storage in KB."""

    model: str
    accuracy: float
    parameters: int
    storage: int


TABLE_III = {
    "tinyformer-120k": Ablation("TinyFormer", 96.10, 731, 942),
    "no-transformer": Ablation("without transformer", 94.62, 756, 963),
    "single-dot": Ablation("single DoT", 93.92, 572, 655),
    "block-2": Ablation("block size 2", 95.88, 730, 950),
    "block-4": Ablation("block size 4", 95.52, 807, 962),
}
"""By the `row` of cards, which are of TinyFormer-120K and its variants; the paper's are of TinyFormer-300K, each row
searched within 300 KB of memory and 980 KB of storage."""

TABLE_III_LIMITS = {"flash": 980 * 1024, "ram": 300 * 1024}


@dataclass(frozen=True)
class LayerNormRow:
    """A row of Table IV: accuracy in per cent, and milliseconds by shape on an STM32F746."""

    method: str
    accuracy: float
    milliseconds: dict[str, float]


TABLE_IV = {
    "real": LayerNormRow("FP32-LN", 96.11, {"256x44": 194, "64x192": 208}),
    "naive": LayerNormRow("INT8-LN (naive)", 95.92, {"256x44": 5, "64x192": 4}),
    "scaled": LayerNormRow("INT8-LN (scaled)", 96.10, {"256x44": 5, "64x192": 4}),
}

FIG_9A_ACCEPTED = {"small": "< 30 %", "normal": "> 90 %", "large": "< 30 %"}
"""Acceptance probabilities."""

FIG_9B_LOST = {"small": 0.20, "large": 5.45}
"""Points of accuracy that pruning and quantisation cost."""

LATENCY_SECONDS = 3.9
"""Of TinyFormer-300K on an STM32F746."""

SPEEDUP = (5.3, 12.2)
"""Over CMSIS-NN, Fig. 10: least and most."""

SAVED = (9, 78)
"""Per cent of storage, Fig. 10."""

SOFTMAX_SHARE = 94
"""Per cent of CMSIS-NN's time, Fig. 11a."""

WHOLE_SPEEDUP = {"stm32f746": 6.9, "stm32h743": 7.9}
"""Over CMSIS-NN at 60 % zeros, Fig. 11a."""

SOFTMAX_SPEEDUP = 22.5
"""Over CMSIS-NN, Fig. 11b."""

SUM_SPEEDUP = (1.33, 1.55)
"""Of convolutions and linear layers over CMSIS-NN, Fig. 11b: least and most."""
