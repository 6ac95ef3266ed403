"""Compare the default map with one computed without this package, on every kind of network there is.

    python scripts/zoo.py                     # go on where the last run was; some 40 minutes on two cores
    python scripts/zoo.py --only 'timm/swin*' # these networks alone, anew
    python scripts/zoo.py --again             # all of them anew
    python scripts/zoo.py --render            # only write the page from the results
    python scripts/zoo.py --list              # only the networks' names

For each network the layer that the package takes by default is watched with a hook of this script's own, its
output is brought to (N, C, H, W) by what its library says of it or by a rule written down here, and the map
is computed image by image. Three things are asked: are the two maps the same; do the units in two corners of
the map see those corners of the image; does the map lie inside the theoretical receptive field. The results
stand in ``docs/zoo.json``, and ``docs/zoo.md`` is made from them.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from fnmatch import fnmatch
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "zoo.json"
PAGE = ROOT / "docs" / "zoo.md"

Size = tuple[int, int]

IMAGES = 4
# The largest difference of two maps, as a part of the largest value, by dtype.
TOLERANCES = {"float64": 1e-8, "float32": 1e-3}
# Networks that compute in float32 here and there, whatever the weights are, and what is right there.
FLOAT32_INSIDE = ("timm/deepseek_vit*", "timm/efficientvit_l*")
FLOAT32_INSIDE_TOLERANCE = 1e-5
# Larger networks, in millions of parameters, are run in float32: in float64 they and their copy take too much
# memory.
LARGEST_IN_FLOAT64 = 700
# Up to so many million parameters larger images are tried where the given ones do not tell.
LARGEST_ENLARGED = 30
# Seconds that one network may take, and its theoretical receptive field of them.
LIMIT, FIELD_LIMIT = 600, 120


# --- the networks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A network of the list.

    Attributes:
        library: ``"torchvision"``, ``"timm"`` or ``"transformers"``.
        name: What the library calls it; of transformers the class.
        size: (H, W) of the images.
        settings: What it is built with, besides random weights.
        part: Name of the submodule that is run in its place; ``""``: the whole.
        kind: Its family, in the library's words.
    """

    library: str
    name: str
    size: Size
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    kind: str = ""

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.library}/{self.name}" + (f" ({self.part})" if self.part else "")

    def build(self) -> nn.Module:
        """Return it with random weights of its own seed."""
        torch.manual_seed(zlib.crc32(self.key.encode()))
        model: nn.Module = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[
            self.library
        ](self)
        model = model.get_submodule(self.part) if self.part else model
        return model.eval().requires_grad_(False)


def _torchvision(network: Network) -> nn.Module:
    import torchvision

    weights: dict[str, Any] = {"weights": None}
    if network.kind in ("segmentation", "detection"):
        weights["weights_backbone"] = None
    return torchvision.models.get_model(network.name, **weights, **network.settings)


def _timm(network: Network) -> nn.Module:
    import timm

    return timm.create_model(network.name, pretrained=False, **network.settings)


def _transformers(network: Network) -> nn.Module:
    import transformers

    made = getattr(transformers, network.name)
    return made(made.config_class(**network.settings))


# Torchvision's networks that need other images than (64, 96) for a map of two rows, or that see so little
# that a larger image has a border they do not see.
_TORCHVISION_SIZES: dict[str, Size] = {
    "alexnet": (224, 256),
    "inception_v3": (128, 160),
    "squeezenet1_0": (224, 256),
    "squeezenet1_1": (224, 256),
    "vgg11": (224, 256),
    "vgg13": (192, 224),
    "maxvit_t": (224, 224),
    "regnet_y_128gf": (64, 64),
}
_TORCHVISION_SETTINGS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    **{f"vit_{size}": {"image_size": 64} for size in ("b_16", "l_16")},
    **{f"vit_{size}": {"image_size": 96} for size in ("b_32", "l_32")},
    "vit_h_14": {"image_size": 42},
}


def _torchvision_networks() -> Iterator[Network]:
    import torchvision

    models = torchvision.models
    for name in models.list_models(module=models):
        settings = _TORCHVISION_SETTINGS.get(name, {})
        side = settings.get("image_size")
        size = (side, side) if side else _TORCHVISION_SIZES.get(name, (64, 96))
        yield Network("torchvision", name, size, settings, kind="classification")
    for name in models.list_models(module=models.segmentation):
        yield Network("torchvision", name, (64, 96), kind="segmentation")
    for name in models.list_models(module=models.detection):
        small = {} if name.startswith("ssd") else {"min_size": 64, "max_size": 96}
        if "rcnn" in name:  # few regions: their heads come behind every feature map, and take minutes
            small |= {"rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 5}
        size = (300, 300) if name == "ssd300_vgg16" else (64, 96)
        yield Network("torchvision", name, size, small, "backbone", "detection")
        yield Network("torchvision", name, (64, 96), small, "", "detection")


# Of each module of timm some networks, most often the smallest, as NAME, NAME@HxW for images of another size
# than (64, 96), and with "!" where the network is built for that size.
_TIMM = {
    "beit": "beit_base_patch16_224@!",
    "byoanet": ("halonet26t@256x256 botnet26t_256@! sebotnet33ts_256@! lambda_resnet26t@!"),
    "byobnet": (
        "gernet_s mobileone_s0@! regnetz_b16 repvgg_a0@! resnet32ts gcresnext26ts@! "
        "bat_resnext26ts@256x256 resnet50_clip@! test_byobnet"
    ),
    "cait": "cait_xxs24_224@!",
    "coat": "coat_tiny@! coat_lite_tiny@!",
    "convit": "convit_tiny@224x224",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_atto convnextv2_atto convnext_zepto_rms test_convnext",
    "cpubone": "cpubone_nano cpubone_b0_bfrobust",
    "crossvit": "crossvit_9_240",
    "csatv2": "csatv2@128x192",
    "cspnet": "cs3darknet_focus_s cs3darknet_s cspresnet50 darknet17",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m@84x126 deepseek_vit_412m_align@84x126",
    "deit": "deit_tiny_patch16_224@! deit_tiny_distilled_patch16_224@! deit3_small_patch16_224@!",
    "densenet": "densenet121 densenetblur121d",
    "dla": "dla34 dla46_c dla60_res2net",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1@224x224",
    "efficientformer_v2": "efficientformerv2_s0@!",
    "efficientnet": (
        "efficientnet_b0 efficientnet_cc_b0_4e tf_efficientnet_lite0 tf_efficientnetv2_b0 mixnet_s "
        "mobilenetv1_100 mobilenetv2_035 tinynet_e mnasnet_small fbnetc_100 test_efficientnet"
    ),
    "efficientvim": "efficientvim_m1@128x192",
    "efficientvit_mit": "efficientvit_b0 efficientvit_l1",
    "efficientvit_msra": "efficientvit_m0@96x128!",
    "eva": (
        "eva02_tiny_patch14_224@! vit_small_patch16_dinov3@! vit_small_patch16_rope_224@! "
        "vit_small_patch16_rope_mixed_224@! vit_pe_core_tiny_patch16_384@! "
        "vit_pe_spatial_tiny_patch16_512@!"
    ),
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8 fastvit_sa12",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny@!",
    "gemma4_vit": "gemma4_vit_167m@!",
    "ghostnet": "ghostnet_050 ghostnetv2_100 ghostnetv3_050",
    "hardcorenas": "hardcorenas_a",
    "hgnet": "hgnet_tiny hgnetv2_b0",
    "hiera": "hiera_tiny_224@!",
    "hieradet_sam2": "hieradet_small sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2@128x192",
    "inception_v3": "inception_v3@128x192",
    "inception_v4": "inception_v4@128x192",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s@96x128! levit_conv_128s@96x128!",
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto test_mambaout",
    "maxxvit": (
        "test_maxvit@! test_coatnet@! coatnet_nano_rw_224@! coatnext_nano_rw_224@! "
        "maxvit_tiny_rw_224@! maxxvit_rmlp_nano_rw_256@!"
    ),
    "metaformer": "caformer_s18 convformer_s18 poolformer_s12 poolformerv2_s12",
    "mlp_mixer": "mixer_s16_224@! mixer_s32_224@! gmlp_ti16_224@! resmlp_12_224@! gmixer_12_224@!",
    "mobilenetv3": (
        "mobilenetv3_small_050 mobilenetv4_conv_small mobilenetv4_hybrid_medium_075 lcnet_035 fbnetv3_b"
    ),
    "mobilenetv5": "mobilenetv5_300m",
    "mobilevit": "mobilevit_xxs@! mobilevitv2_050@!",
    "mvitv2": "mvitv2_tiny mvitv2_small_cls",
    "naflexvit": "naflexvit_base_patch16_gap@!",
    "nest": "nest_tiny@224x224",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet nfnet_l0 nf_resnet26",
    "pit": "pit_ti_224@64x96! pit_ti_distilled_224@64x96!",
    "pvt_v2": "pvt_v2_b0 pvt_v2_b2_li",
    "qwen3_vit": "qwen3_vit_88m@! qwen3_vit_88m_merge@!",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002 regnety_002 regnetz_005",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m0_9@!",
    "res2net": "res2net50_14w_8s",
    "resnest": "resnest14d",
    "resnet": "resnet10t resnet26d ecaresnet26t seresnet18 resnetblur18 resnetaa34d",
    "resnetv2": "resnetv2_18 resnetv2_50x1_bit",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42@96x128",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s@!",
    "shvit": "shvit_s1@96x128",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs@!",
    "swin_transformer": "swin_tiny_patch4_window7_224@! swin_s3_tiny_224@!",
    "swin_transformer_v2": "swinv2_tiny_window8_256@!",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224@!",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_patch16_224@! tnt_s_legacy_patch16_224@!",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small@! twins_pcpvt_small@!",
    "vgg": "vgg11",
    "visformer": "visformer_tiny@!",
    "vision_transformer": (
        "flexivit_small@! vit_small_patch32_224@! vit_small_patch14_dinov2@! "
        "vit_small_patch14_reg4_dinov2@! test_vit@! test_vit2@! test_vit3@! test_vit4@! "
        "vit_tiny_patch16_224@! vit_wee_patch16_reg1_gap_256@! vit_base_patch32_clip_224@! "
        "vit_base_patch16_siglip_224@!"
    ),
    "vision_transformer_hybrid": (
        "vit_tiny_r_s16_p8_224@! vit_small_r26_s32_224@! vit_small_resnet26d_224@!"
    ),
    "vision_transformer_relpos": (
        "test_vit_relpos@! vit_relpos_small_patch16_224@! vit_srelpos_small_patch16_224@!"
    ),
    "vision_transformer_sam": "samvit_base_patch16_224@!",
    "vitamin": "vitamin_small_224@!",
    "volo": "volo_d1_224@!",
    "vovnet": "vovnet39a ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41 xception41p",
    "xcit": "xcit_nano_12_p16_224@!",
}
# To make large ones small.
_TIMM_SETTINGS: dict[str, dict[str, Any]] = {
    "deepseek_vit_412m": {"depth": 3},
    "deepseek_vit_412m_align": {"depth": 3},
    "gemma4_vit_167m": {"depth": 2},
}


def _timm_networks() -> Iterator[Network]:
    for module, names in _TIMM.items():
        for written in names.split():
            name, _, size = written.partition("@")
            height, width = map(int, (size.removesuffix("!") or "64x96").split("x"))
            settings = dict(_TIMM_SETTINGS.get(name, {}))
            if size.endswith("!"):
                settings["img_size"] = (height, width)
            yield Network("timm", name, (height, width), settings, kind=module)


_SMALL_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": (64, 96),
    "patch_size": 16,
}
_SQUARE_VIT = {**_SMALL_VIT, "image_size": 64}
_SMALL_SWIN = {
    "image_size": 64,
    "embed_dim": 16,
    "depths": [2, 2, 2],
    "num_heads": [2, 2, 4],
    "window_size": 4,
}
# Stage by stage.
_FOUR_STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [2, 2, 2, 2]}
_TRANSFORMERS: dict[str, tuple[Size, dict[str, Any]]] = {
    "ViTModel": ((64, 96), _SMALL_VIT),
    "ViTForImageClassification": ((64, 96), _SMALL_VIT),
    "ViTMSNModel": ((64, 64), _SQUARE_VIT),
    "DeiTModel": ((64, 64), _SQUARE_VIT),
    "BeitModel": ((64, 64), {**_SQUARE_VIT, "use_relative_position_bias": True}),
    "Data2VecVisionModel": ((64, 64), _SQUARE_VIT),
    "Dinov2Model": ((64, 96), _SQUARE_VIT),
    "Dinov2WithRegistersModel": ((64, 96), _SQUARE_VIT),
    "DINOv3ViTModel": ((64, 96), {**_SQUARE_VIT, "num_register_tokens": 4}),
    "IJepaModel": ((64, 64), _SQUARE_VIT),
    "CLIPVisionModel": ((64, 64), _SQUARE_VIT),
    "SiglipVisionModel": ((64, 64), _SQUARE_VIT),
    "YolosModel": ((64, 96), {**_SMALL_VIT, "num_detection_tokens": 5}),
    "HieraModel": (
        (64, 64),
        {"image_size": [64, 64], "embed_dim": 16, "num_heads": [1, 2, 4, 8], "depths": [1, 2, 3, 2]},
    ),
    "SwinModel": ((64, 96), _SMALL_SWIN),
    "SwinForImageClassification": ((64, 96), _SMALL_SWIN),
    "Swinv2Model": ((64, 96), _SMALL_SWIN),
    "SegformerModel": ((64, 96), {"hidden_sizes": [16, 24, 32, 48], "num_attention_heads": [1, 2, 4, 6]}),
    "SegformerForSemanticSegmentation": (
        (64, 96),
        {"hidden_sizes": [16, 24, 32, 48], "num_attention_heads": [1, 2, 4, 6], "decoder_hidden_size": 32},
    ),
    "GLPNModel": ((64, 96), {"hidden_sizes": [16, 24, 32, 48], "num_attention_heads": [1, 2, 4, 6]}),
    "ConvNextModel": ((64, 96), _FOUR_STAGES),
    "ConvNextForImageClassification": ((64, 96), _FOUR_STAGES),
    "ConvNextV2Model": ((64, 96), _FOUR_STAGES),
    "DINOv3ConvNextModel": ((64, 96), _FOUR_STAGES),
    "ResNetModel": (
        (64, 96),
        {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [2, 2, 2, 2]},
    ),
    "RegNetModel": (
        (64, 96),
        {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 2, 2, 1], "groups_width": 8},
    ),
    "BitModel": (
        (64, 96),
        {"num_groups": 4, "embedding_size": 32, "hidden_sizes": [64, 64, 64, 64], "depths": [2, 2, 2, 2]},
    ),
    "PvtModel": (
        (64, 64),
        {"image_size": 64, "hidden_sizes": [16, 32, 48, 64], "num_attention_heads": [1, 2, 4, 8]},
    ),
    "PvtV2Model": (
        (64, 96),
        {"image_size": {"height": 64, "width": 96}, "hidden_sizes": [16, 32, 48, 64]}
        | {"num_attention_heads": [1, 2, 4, 8]},
    ),
    "MobileNetV1Model": ((64, 96), {"depth_multiplier": 0.25}),
    "MobileNetV2Model": ((64, 96), {"depth_multiplier": 0.35}),
    "MobileViTModel": (
        (64, 96),
        {"image_size": 64, "hidden_sizes": [24, 32, 48], "neck_hidden_sizes": [8, 16, 16, 24, 32, 40, 64]},
    ),
    "MobileViTV2Model": ((64, 96), {"image_size": 64, "width_multiplier": 0.5}),
    "PoolFormerModel": ((64, 96), {"hidden_sizes": [16, 24, 32, 48]}),
    "EfficientNetModel": (
        (64, 96),
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.5} | {"hidden_dim": 320},
    ),
    "LevitModel": (
        (224, 224),
        {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "key_dim": [8, 8, 8]},
    ),
    "CvtModel": ((64, 96), {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]}),
    "FocalNetModel": ((64, 96), {"image_size": 64, "embed_dim": 16, "depths": [2, 2, 2, 2]}),
    "SwiftFormerModel": (
        (64, 96),
        {"image_size": 64, "embed_dims": [16, 24, 32, 48], "depths": [2, 2, 2, 2]},
    ),
}


def _transformers_networks() -> Iterator[Network]:
    for name, (size, settings) in _TRANSFORMERS.items():
        yield Network("transformers", name, size, settings, kind=name)


def networks() -> list[Network]:
    """Return the whole list, in the order of the page."""
    return [*_torchvision_networks(), *_timm_networks(), *_transformers_networks()]


def _waken(model: nn.Module, images: Tensor) -> None:
    """Give a new network what training would: no branch is switched off, and batch norms fit the images.

    Layers begin with scales of 0 or 1e-6 and with biases of 0, which hides half of what a network does, and a
    layer norm whose scales are all 1 has a constant mean over channels.
    """
    for parameter in model.parameters():
        if (
            parameter.is_floating_point()
            and parameter.numel() > 1
            and bool((parameter == parameter.flatten()[0]).all())
        ):
            parameter.add_(torch.randn_like(parameter), alpha=0.1 if parameter.ndim == 1 else 0.02)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = {module: module.momentum for module in norms}
    states = {
        module: {name: value.clone() for name, value in module.state_dict().items()} for module in norms
    }
    try:
        for module in norms:
            module.train()
            module.momentum = 1.0
        with torch.no_grad():
            model(images)
    except Exception:  # one value for each channel, say: then they stay as they were
        for module in norms:
            module.load_state_dict(states[module])
    finally:
        for module in norms:
            module.eval()
            module.momentum = before[module]


# --- what the package is compared with ----------------------------------------------------------------------

# Which layers with outputs of four dims give (N, H, W, C): by patterns of the network's key and the layer.
# What a library says of itself goes before.
_CHANNELS_LAST: tuple[str, ...] = ("torchvision/swin*:features*",)
# How many tokens come before the patches, where the network does not say so.
_PREFIX: dict[str, int] = {
    "torchvision/vit_*": 1,
    "transformers/DeiT*": 2,
    "transformers/Dinov2WithRegisters*": 5,
    "transformers/DINOv3ViT*": 5,
    "transformers/IJepa*": 0,
    "transformers/Siglip*": 0,
    "transformers/ViT*": 1,
    "transformers/PvtModel*": 1,
    "transformers/DINOv3ConvNext*": 1,
    "transformers/Beit*": 1,
    "transformers/Data2Vec*": 1,
    "transformers/Dinov2Model*": 1,
    "transformers/CLIP*": 1,
    "transformers/Yolos*": 1,
    "transformers/Cvt*": 1,
}
# And how many after them.
_SUFFIX: dict[str, int] = {"transformers/Yolos*": 5}


class Literal(NamedTuple):
    """Images, run as they are.

    Attributes:
        images: (N, C, H, W), the leaf.
        features: (N, C, H, W) of the layer.
        reference: How they were brought to that order.
    """

    images: Tensor
    features: Tensor
    reference: str


class NoReferenceError(Exception):
    """It is not known how a layer's output is laid out."""


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    return (
        [entry for entry in output if isinstance(entry, Tensor)] if isinstance(output, (list, tuple)) else []
    )


@contextmanager
def _caught(module: nn.Module) -> Iterator[list[Any]]:
    """Give a list that holds what the module gave last, copied: what runs next may work in place on it."""
    caught: list[Any] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        caught[:] = [tensor.clone() for tensor in _tensors(output)]

    handle = module.register_forward_hook(note)
    try:
        yield caught
    finally:
        handle.remove()


def _same_vectors(raw: Tensor, intermediate: Tensor) -> bool:
    """Whether the positions of (C, H, W) are among those of a layer's raw output, one image, in any order.

    At most 32 positions more, class and register tokens, may be there.
    """
    channels = intermediate.shape[0]
    wanted = intermediate.detach().flatten(1).T
    scale = float(wanted.abs().max())
    projection = torch.randn(channels, dtype=wanted.dtype, generator=torch.Generator().manual_seed(0))
    for dim in range(1, raw.ndim):
        if raw.shape[dim] != channels:
            continue
        given = raw.detach()[0].movedim(dim - 1, -1).reshape(-1, channels)
        if not 0 <= len(given) - len(wanted) <= 32:
            continue
        order = (given @ projection).argsort()
        sorted_values = (given @ projection)[order]
        values = wanted @ projection
        near = torch.searchsorted(sorted_values, values).clamp(0, len(given) - 1)
        best = torch.full((len(wanted),), float("inf"), dtype=wanted.dtype)
        for step in (-1, 0, 1):
            found = given[order[(near + step).clamp(0, len(given) - 1)]]
            best = torch.minimum(best, (found - wanted).abs().amax(1))
        if float(best.max()) <= 1e-9 * scale:
            return True
    return False


def _intermediates(model: nn.Module, image: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield what timm itself gives as (N, C, H, W), the last first, with a name for each."""
    if not hasattr(model, "forward_intermediates"):
        return
    for norm in (True, False):
        try:
            found = model.forward_intermediates(image, norm=norm, output_fmt="NCHW", intermediates_only=True)
        except Exception:  # not every network has the option, or runs at this size
            continue
        if isinstance(found, Mapping):
            found = found.get("image_intermediates", [])
        for index in range(len(found) - 1, -1, -1):
            if isinstance(found[index], Tensor) and found[index].ndim == 4:
                yield (
                    f"forward_intermediates[{index - len(found)}]" + (", norm" if norm else ""),
                    found[index],
                )


def _grid(count: int, size: Size) -> Size | None:
    """Return (h, w) with so many entries in the shape of the image; ``None`` if there is none."""
    height = round((count * size[0] / size[1]) ** 0.5)
    if height and count % height == 0 and abs(count / height / height - size[1] / size[0]) < 0.35:
        return height, count // height
    return None


def _matching(table: Mapping[str, Any], key: str) -> Any:
    return next((value for pattern, value in table.items() if fnmatch(key, pattern)), None)


def _by_hand(network: Network, model: nn.Module, layer: str, raw: Tensor, size: Size) -> tuple[Tensor, str]:
    """Return (N, C, H, W) by a written rule, and the rule."""
    key = f"{network.key}:{layer}"
    if raw.ndim == 4:
        if any(fnmatch(key, pattern) for pattern in _CHANNELS_LAST):
            return raw.permute(0, 3, 1, 2), "by hand: (N, H, W, C)"
        return raw, "by hand: (N, C, H, W)"
    prefix = _matching(_PREFIX, key)
    words = "by hand"
    if prefix is None and network.library == "timm":
        prefix = getattr(model, "num_prefix_tokens", None)
        words = "by hand, num_prefix_tokens of timm"
    prefix = prefix or 0
    count = raw.shape[1] - prefix - (_matching(_SUFFIX, key) or 0)
    grid = _grid(count, size)
    if grid is None:
        raise NoReferenceError(f"{raw.shape[1]} tokens with {prefix} before are no grid")
    tokens = raw[:, prefix : prefix + count].transpose(1, 2)
    rule = f"{words}: {prefix} + {grid[0]} x {grid[1]} tokens, row by row"
    return tokens.reshape(len(raw), -1, *grid), rule


def literal(network: Network, model: nn.Module, layer: str, images: Tensor, name: str | None) -> Literal:
    """Run images and bring the layer's output to (N, C, H, W).

    Args:
        network: What the model is.
        model: The network.
        layer: Dotted name.
        images: (N, C, H, W).
        name: The intermediate that is the layer's output, from an earlier call; ``None``: it has to be found,
            ``""``: there is none.
    """
    leaf = images.clone().requires_grad_()
    size = (images.shape[2], images.shape[3])
    if name is None:
        with torch.no_grad(), _caught(model.get_submodule(layer)) as caught:
            model(images.clone())
        raws = [raw for raw in caught if raw.ndim in (3, 4)]
        with torch.no_grad():
            found = [
                candidate
                for candidate, values in _intermediates(model, images)
                if any(_same_vectors(raw, values[0]) for raw in raws)
            ]
        name = found[0] if found else ""
    if name:
        for candidate, values in _intermediates(model, leaf):
            if candidate == name:
                return Literal(leaf, values, name)
    with _caught(model.get_submodule(layer)) as caught:
        model(leaf.clone())
    spatial = [tensor for tensor in caught if tensor.ndim in (3, 4)]
    if not spatial:
        raise NoReferenceError(f"the layer gave {[tuple(tensor.shape) for tensor in caught]}")
    features, words = _by_hand(network, model, layer, spatial[0], size)
    if len(caught) > 1:
        words += f", the first of {len(caught)} tensors"
    return Literal(leaf, features, words)


def _name(run: Literal) -> str:
    return run.reference if run.reference.startswith("forward_intermediates") else ""


def literal_map(network: Network, model: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Size, str]:
    """Return the map, (H, W) of the features, and how they were brought there.

    The map is eq. 3 written out: the gradient of the mean over channels at (H // 2, W // 2), its mean over
    colours, rectified, and the mean over images. Two images are run at a time: PyTorch's gradient of a single
    one is not always right (of a batch normalisation in evaluation mode, where the gradient that comes to it
    has the strides of tokens).
    """
    total = torch.zeros(images.shape[2:], dtype=torch.float64)
    name: str | None = None
    grid, words = (0, 0), ""
    for batch in images.split(2):
        run = literal(network, model, layer, batch, name)
        name, words = _name(run), run.reference
        _, _, height, width = run.features.shape
        grid = (height, width)
        value = run.features.mean(1)[:, height // 2, width // 2].sum()
        (gradient,) = torch.autograd.grad(value, run.images)
        total += gradient.mean(1).clamp(min=0).double().sum(0)
    return total / len(images), grid, words


class _ConstantMeans(TorchFunctionMode):
    """Inside, means over whole maps count as constants: gates look at all of an image, from every unit."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        whole = name in ("mean", "adaptive_avg_pool2d") and isinstance(args[0], Tensor) and args[0].ndim == 4
        if whole and isinstance(result, Tensor) and result.numel() == args[0].shape[:2].numel():
            return result.detach()
        return result


class Corners:
    """Where the units in the top right and in the bottom left corner of a map look.

    They look at the centroid (y, x), from 0 to 1, of their squared gradient. The first must look higher up
    and further to the right. One gradient is noisy, so they are taken of more images and of more sums over
    channels until the difference along each axis is three times its standard error.

    Args:
        size: (H, W) of the images.
    """

    FEWEST, MOST = 4, 8

    def __init__(self, size: Size) -> None:
        self.size = size
        self._pairs: list[tuple[list[float], list[float]]] = []

    def look(self, sums: Tensor, images: Tensor) -> None:
        """Take the gradients of two corners of (N, H, W) sums over channels."""
        (first,) = torch.autograd.grad(sums[:, 0, -1].sum(), images, retain_graph=True)
        (second,) = torch.autograd.grad(sums[:, -1, 0].sum(), images)
        for top_right, bottom_left in zip(first, second, strict=True):
            self._pairs.append((centroid(top_right), centroid(bottom_left)))

    @property
    def open(self) -> bool:
        """Whether more gradients may tell."""
        return self.in_place is None and len(self._pairs) < self.MOST

    @property
    def in_place(self) -> bool | None:
        """Whether they look where they should; ``None``: not known yet."""
        if len(self._pairs) < self.FEWEST:
            return None
        found = torch.tensor(self._pairs, dtype=torch.float64)
        # Down from the top right to the bottom left, and to the left.
        steps = (found[:, 1] - found[:, 0]) * torch.tensor([1.0, -1.0], dtype=torch.float64)
        mean, error = steps.mean(0), steps.std(0) / len(steps) ** 0.5
        if bool((mean > 3 * error).all()):
            return True
        elsewhere = bool((mean < -3 * error).any()) and len(steps) >= self.MOST
        return False if elsewhere else None

    def as_dict(self) -> dict[str, Any]:
        """Return the mean places, the number of gradients, and whether they are right."""
        first, second = torch.tensor(self._pairs, dtype=torch.float64).mean(0).tolist()
        return {
            "top right": [round(value, 3) for value in first],
            "bottom left": [round(value, 3) for value in second],
            "gradients": len(self._pairs),
            "input_size": self.size,
            "in_place": self.in_place,
        }


def look_into_corners(network: Network, model: nn.Module, layer: str, images: Tensor) -> Corners:
    """Return where the units in two corners look.

    On a small image a unit of a deep layer looks at all of it, and random weights may draw it aside; then
    larger images are taken, if need be with a network built for them.
    """
    generator = torch.Generator().manual_seed(2)
    found = corners = Corners(network.size)
    height, width = network.size
    small = sum(parameter.numel() for parameter in model.parameters()) <= LARGEST_ENLARGED * 1e6
    for factor in (1, 3) if small else (1,):
        size = (factor * height, factor * width)
        corners = Corners(size)
        name: str | None = None
        try:
            if factor > 1 and "img_size" in network.settings:
                network = replace(network, size=size, settings={**network.settings, "img_size": size})
                model = network.build().to(images.dtype)
                _waken(model, torch.randn(IMAGES, 3, *size, generator=generator, dtype=images.dtype))
            while corners.open:
                # Of one image alone PyTorch's gradient is not always right.
                image = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64).to(images.dtype)
                image = image.sigmoid() if network.kind == "detection" else image
                with _ConstantMeans():
                    run = literal(network, model, layer, image, name)
                name = _name(run)
                signs = torch.randint(0, 2, (run.features.shape[1], 1, 1), generator=generator) * 2 - 1
                corners.look((run.features * signs).mean(1), run.images)
        except Exception:
            if factor == 1:
                raise
            break  # it is built for one size
        found = corners
        if corners.in_place:
            break
    return found


def centroid(gradient: Tensor) -> list[float]:
    """Return the centroid (y, x) of a squared gradient (C, H, W), each from 0 to 1."""
    energy = (gradient.double() / gradient.abs().max()).square().sum(0)
    energy = energy / energy.sum()
    place = []
    for dim in (0, 1):
        line = energy.sum(1 - dim)
        place.append(float((line * torch.linspace(0, 1, len(line), dtype=torch.float64)).sum()))
    return place


# --- one network --------------------------------------------------------------------------------------------


def _behind(model: nn.Module, layer: str, image: Tensor) -> list[str]:
    """Return the last modules that run after a layer has ended, with the shapes of what they give."""
    ended: list[tuple[str, str]] = []
    handles = [
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: ended.append(
                (name, ", ".join(str(tuple(tensor.shape)) for tensor in _tensors(output)))
            )
        )
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    last = max((index for index, (name, _) in enumerate(ended) if name == layer), default=-1)
    return [f"{name}: {shape}" for name, shape in ended[last + 1 :] if not layer.startswith(f"{name}.")]


class _TooLongError(Exception):
    pass


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _theory(model: nn.Module, layer: str, grid: Size, seen: Tensor) -> dict[str, Any]:
    """Return the layer's theoretical receptive field, and whether the map lies inside it."""
    from erfattr.receptive_field.trace import theoretical_receptive_field

    started = time.perf_counter()
    size = (seen.shape[0], seen.shape[1])
    try:
        with _at_most(FIELD_LIMIT):
            found = theoretical_receptive_field(model, layer, size)
    except _TooLongError:
        return {"refused": f"took more than {FIELD_LIMIT} seconds"}
    except ValueError as error:
        return {"refused": _line(error), "seconds": round(time.perf_counter() - started, 2)}
    seconds = round(time.perf_counter() - started, 2)
    result = {
        "size": found.size,
        "local_size": found.local_size,
        "stride": found.stride,
        "status": found.status,
        "method": found.method,
        "note": found.note,
        "seconds": seconds,
    }
    if found.output_size != grid:
        return result | {"inside": None, "output_size": found.output_size}
    top, left, bottom, right = found.bounds((grid[0] // 2, grid[1] // 2), clipped=True)
    outside = seen.clone()
    outside[top : bottom + 1, left : right + 1] = 0
    return result | {"inside": not bool(outside.any())}


def _line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()


def examine(network: Network) -> dict[str, Any]:
    """Return the row of one network."""
    from erfattr.attr.erf import ERF

    row: dict[str, Any] = {
        "library": network.library,
        "name": network.name,
        "part": network.part,
        "kind": network.kind,
        "input_size": network.size,
        "settings": dict(network.settings),
    }
    begun = time.perf_counter()
    try:
        model = network.build()
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        dtype = torch.float64 if millions <= LARGEST_IN_FLOAT64 else torch.float32
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(IMAGES, 3, *network.size, generator=generator, dtype=torch.float64).to(dtype)
        if network.kind == "detection":
            images = images.sigmoid()  # detectors take colours from 0 to 1
        model = model.to(dtype)
        _waken(model, images)
        with torch.no_grad():
            model(images[:1].clone())
    except Exception as error:
        return row | {"status": "not built", "message": f"{type(error).__name__}: {_line(error)}"}
    tolerance = TOLERANCES[str(dtype).removeprefix("torch.")]
    if any(fnmatch(network.key, pattern) for pattern in FLOAT32_INSIDE):
        tolerance = FLOAT32_INSIDE_TOLERANCE
    row |= {
        "parameters": round(millions, 2),
        "tolerance": tolerance,
        "dtype": str(dtype).removeprefix("torch."),
    }
    seconds = {"build": round(time.perf_counter() - begun, 2)}
    begun = time.perf_counter()
    try:
        mapped, statistics = ERF(model).attribute(images, return_statistics=True)
    except ValueError as error:
        return row | {"status": "refused", "message": _line(error), "seconds": seconds}
    except Exception as error:
        return row | {
            "status": "WRONG",
            "message": f"raised {type(error).__name__}: {_line(error)}",
            "seconds": seconds,
        }
    seconds["map"] = round(time.perf_counter() - begun, 2)
    source = statistics.source
    row |= {
        "layer": source.layer,
        "layout": source.layout,
        "unit": source.unit,
        "feature_size": source.feature_size,
        "center": source.center,
        "computed": statistics.computed,
        "behind": _behind(model, source.layer, images[:1].clone())[-12:],
    }
    begun = time.perf_counter()
    try:
        expected, grid, words = literal_map(network, model, source.layer, images)
        difference = float((mapped - expected).abs().max() / expected.abs().max())
        corners = look_into_corners(network, model, source.layer, images)
    except NoReferenceError as error:
        return row | {"status": "not compared", "message": _line(error), "seconds": seconds}
    seconds["literal"] = round(time.perf_counter() - begun, 2)
    theory = _theory(model, source.layer, grid, expected)
    wrong = []
    if grid != tuple(source.feature_size):
        wrong.append(f"the map is {grid[0]} x {grid[1]}, not {source.feature_size}")
    if not difference < tolerance:
        wrong.append(f"the maps differ by {difference:.3g} of the maximum")
    if corners.in_place is False:
        wrong.append("the units in two corners look elsewhere")
    if theory.get("inside") is False:
        wrong.append("the map goes beyond the theoretical receptive field")
    return row | {
        "reference": words,
        "difference": float(f"{difference:.3g}"),
        "corners": corners.as_dict(),
        "theory": theory,
        "seconds": seconds,
        "status": "WRONG" if wrong else "right",
        "message": "; ".join(wrong),
    }


# --- all of them --------------------------------------------------------------------------------------------


def _child(network: Network, pipe: Connection) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    try:
        row = examine(network)
    except BaseException as error:
        row = _lost(network, f"{type(error).__name__}: {_line(error)}")
        row["traceback"] = traceback.format_exc().splitlines()[-8:]
    pipe.send(row)


def run(wanted: list[Network], jobs: int, done: Callable[[Network, dict[str, Any]], None]) -> None:
    """Examine networks, each in a process of its own, ``jobs`` at a time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "torchvision.models", "timm", "transformers", "erfattr.attr.erf"]
    )
    waiting = list(wanted)
    running: dict[Connection, tuple[Any, Network, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            network = waiting.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(network, theirs))
            process.start()
            theirs.close()
            running[ours] = (process, network, time.perf_counter())
        for pipe in wait(list(running), timeout=5):
            process, network, _ = running.pop(pipe)
            try:
                row = pipe.recv()
            except EOFError:
                process.join()
                row = _lost(network, f"the process ended with {process.exitcode}")
            process.join()
            done(network, row)
        for pipe, (process, network, begun) in list(running.items()):
            if time.perf_counter() - begun > LIMIT:
                process.kill()
                process.join()
                del running[pipe]
                done(network, _lost(network, f"took more than {LIMIT} seconds"))


def _lost(network: Network, why: str) -> dict[str, Any]:
    return {
        "library": network.library,
        "name": network.name,
        "part": network.part,
        "kind": network.kind,
        "input_size": network.size,
        "status": "not compared",
        "message": why,
    }


def read_results() -> dict[str, Any]:
    """Return what is there; no rows if nothing is."""
    if not RESULTS.exists():
        return {"about": {}, "rows": {}}
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def keep(rows: Mapping[str, dict[str, Any]], *, anew: bool = False) -> None:
    """Add rows to the results file, which another process may be adding to."""
    from erfattr._files import write_json

    folder = os.open(RESULTS.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        results = {"about": {}, "rows": {}} if anew else read_results()
        order = [network.key for network in networks()]
        merged = {**results["rows"], **rows}
        results["rows"] = {key: merged[key] for key in order if key in merged}
        results["about"] = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            "machine": f"{os.cpu_count()} CPU cores",
            "images": IMAGES,
            "tolerances": TOLERANCES,
            "versions": {
                name: version(name) for name in ("erfattr", "torch", "torchvision", "timm", "transformers")
            },
        }
        write_json(RESULTS, results)
    finally:
        os.close(folder)


def write_page() -> None:
    """Make the page from the results."""
    from erfattr._files import writing_file

    with writing_file(PAGE) as beside:
        beside.write_text(page(read_results()), encoding="utf-8")


_LIBRARIES = {
    "torchvision": "All classification, segmentation and detection networks but the quantised ones. Of a "
    "detector its backbone is a row, and the whole detector with small images another.",
    "timm": "At least one network of each module of timm, most often its smallest.",
    "transformers": "Small configurations of Hugging Face classes, three or four layers deep.",
}
_COLUMNS = (
    *("network", "image", "layer", "map", "its output", "difference", "against", "receptive field"),
    "seconds",
)
_STATUS = ("right", "refused", "WRONG", "not compared", "not built")


_INTRODUCTION = """\
# On every kind of network

Does the package find the right layer, and the right rows and columns, on a network that it has never seen? It
follows the pixels through the network. Here its maps are compared with maps that are computed without it, on
{built} networks with random weights.

{totals}
"""
_METHOD = """\
## What was compared

Each network gets {images} images of noise, in float64. Scales and biases that begin at a constant are drawn
at random, so that no branch is switched off. Batch normalisations are fitted to the images.
`ERF(network).attribute(images)` gives the map, with all that the package does to be faster. Then three things
are checked:

- **The same map.** A hook of the script's own catches the output of the layer that the package took, and
  brings it to (N, C, H, W). If timm's `forward_intermediates` gives the same values, in whatever order, its
  tensor is taken. Otherwise a rule is used that was written down for the network. The gradient of the mean
  over channels at the unit (H // 2, W // 2) is averaged over colours, rectified and averaged over images.
  *Difference* is the largest difference of the two maps, as a part of the largest value. Less than
  {tolerance} is right. Less than {inside} is right for the few networks that compute in float32 here and
  there, whatever they are given. Networks of more than {largest} million parameters are run in float32:
  there less than {single} is right.
- **In its place.** The unit in the top right corner must look higher up and further to the right than the
  unit in the bottom left corner. A unit looks at the centroid of its squared gradient, with means over
  whole maps (of gates) held constant. More images and more sums over channels are taken until the
  difference is three times its standard error, and then larger images. A grid that is turned over or
  transposed would not pass.
- **Inside the theory.** No pixel outside the layer's theoretical receptive field is in the map.

A row is *right* if nothing speaks against it, and *refused* if the package raised `ValueError` and said why.

    python scripts/zoo.py                      # goes on where it was stopped
    python scripts/zoo.py --only 'timm/swin*'  # a few of them anew

Last run: {date}, {machine}, one thread for each network, {minutes} minutes of computing in all; {versions}.
Everything stands in `docs/zoo.json`, also the pixel that each unit is centred on, and what was done to be
faster.

In the tables below each row is a network: the image's size, the layer that was taken, the size of its map,
how its output was read, the difference to the map that was computed without the package, and how that one
was read. Then come the theoretical receptive field and the seconds that the map took.
"""


def page(results: Mapping[str, Any]) -> str:
    """Return the page that results make."""
    about, rows = results["about"], results["rows"]
    counted = {status: [key for key, row in rows.items() if row["status"] == status] for status in _STATUS}
    built = [row for row in rows.values() if row["status"] != "not built"]
    theories = [row["theory"] for row in rows.values() if "theory" in row]
    with_theory = [theory for theory in theories if theory.get("inside") is not None]
    own = [row for row in rows.values() if row.get("reference", "").startswith("forward_intermediates")]
    worst = max(
        (
            row["difference"]
            for row in rows.values()
            if row.get("tolerance") == TOLERANCES["float64"] and "difference" in row
        ),
        default=0,
    )
    seconds = sum(
        sum(row.get("seconds", {}).values()) + row.get("theory", {}).get("seconds", 0)
        for row in rows.values()
    )
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    totals = _totals(rows, counted, theories, with_theory, own, worst)
    parts = [
        _INTRODUCTION.format(built=len(built), totals="\n".join(totals)),
        _METHOD.format(
            images=about["images"],
            tolerance=f"{TOLERANCES['float64']:.0e}",
            inside=f"{FLOAT32_INSIDE_TOLERANCE:.0e}",
            single=f"{TOLERANCES['float32']:.0e}",
            largest=LARGEST_IN_FLOAT64,
            date=about["date"],
            machine=about["machine"],
            minutes=f"{seconds / 60:.0f}",
            versions=versions,
        ),
    ]
    odd = [key for status in ("refused", "WRONG", "not compared", "not built") for key in counted[status]]
    if odd:
        parts += ["## Not right", "", "| network | image | what | in words |", "|---|---|---|---|"]
        for key in odd:
            row = rows[key]
            parts.append(f"| {key} | {_by(row['input_size'])} | {row['status']} | {_cell(row['message'])} |")
        parts.append("")
    for library, words in _LIBRARIES.items():
        chosen = {key: row for key, row in rows.items() if row["library"] == library and "difference" in row}
        parts += [
            f"## {library}",
            "",
            words,
            "",
            f"| {' | '.join(_COLUMNS)} |",
            "|---" * len(_COLUMNS) + "|",
        ]
        parts += [_table_row(key.removeprefix(f"{library}/"), row) for key, row in chosen.items()]
        parts.append("")
    return "\n".join(parts)


def _totals(
    rows: Mapping[str, Any],
    counted: Mapping[str, list[str]],
    theories: list[dict[str, Any]],
    with_theory: list[dict[str, Any]],
    own: list[dict[str, Any]],
    worst: float,
) -> list[str]:
    libraries = [library for library in _LIBRARIES if any(row["library"] == library for row in rows.values())]
    lines = [
        "| | " + " | ".join(libraries) + " | all |",
        "|---|" + "---|" * (len(libraries) + 1),
    ]
    for status in _STATUS:
        numbers = [sum(rows[key]["library"] == library for key in counted[status]) for library in libraries]
        if sum(numbers) or status in ("right", "refused", "WRONG"):
            lines.append(f"| {status} | " + " | ".join(map(str, [*numbers, sum(numbers)])) + " |")
    inside = sum(bool(theory["inside"]) for theory in with_theory)
    clear = [row["corners"]["in_place"] is True for row in rows.values() if "corners" in row]
    exact = sum(theory["status"] == "exact" for theory in with_theory)
    return [
        *lines,
        "",
        f"The largest difference in float64 is {worst:.0e} of the maximum. {len(own)} of the maps were",
        "compared with the tensor that timm itself gives as (N, C, H, W), the others with a rule",
        "written by hand. The theoretical receptive field is known for",
        f"{len(with_theory)} of the {len(theories)} layers ({exact} of them exactly), and {inside} of these",
        f"maps lie inside it. In {sum(clear)} networks the units in two corners look where they should; in "
        f"{len(clear) - sum(clear)} others their gradients are spread too wide to tell.",
    ]


def _by(size: Any) -> str:
    return f"{size[0]} x {size[1]}"


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("<", "&lt;")


def _table_row(name: str, row: Mapping[str, Any]) -> str:
    theory = row["theory"]
    if "size" in theory:
        seen = f"{_by(theory['size'])}, {theory['status']}"
    else:
        seen = "refused"
    reference = "timm's own" if row["reference"].startswith("forward_intermediates") else row["reference"]
    difference = f"{row['difference']:.0e}" + (" (float32)" if row["dtype"] == "float32" else "")
    cells = [
        name,
        _by(row["input_size"]),
        f"`{row['layer']}`",
        _by(row["feature_size"]),
        row["layout"],
        difference,
        reference,
        seen,
        f"{row['seconds']['map']:.1f}",
    ]
    return "| " + " | ".join(map(_cell, cells)) + " |"


def main() -> None:
    """Examine what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", metavar="PATTERN", help="networks whose name fits, such as 'timm/swin*'; anew"
    )
    parser.add_argument("--again", action="store_true", help="forget all results and begin anew")
    parser.add_argument("--list", action="store_true", help="print the networks' names and end")
    parser.add_argument("--render", action="store_true", help="only write the page from the results")
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time, one thread each (default 2)")
    parser.add_argument("--part", metavar="I/N", default="1/1", help="every N-th network, from the I-th")
    options = parser.parse_args()
    which, parts = map(int, options.part.split("/"))
    wanted = networks()[which - 1 :: parts]
    if options.only is not None:
        wanted = [network for network in wanted if fnmatch(network.key, options.only)]
    if options.list:
        print("\n".join(network.key for network in wanted))
        return
    if not options.render:
        if options.again:
            keep({}, anew=True)
        there = read_results()["rows"]
        if options.only is None:
            wanted = [network for network in wanted if network.key not in there]
        count = 0

        def done(network: Network, row: dict[str, Any]) -> None:
            nonlocal count
            count += 1
            keep({network.key: row})
            seconds = sum(row.get("seconds", {}).values())
            words = (
                row["message"]
                or f"{row['layer']}, {row['layout']}, {row['difference']:.1e}, {row['reference']}"
            )
            print(
                f"{count}/{len(wanted)} {network.key}: {row['status']}, {seconds:.0f} s, {words}", flush=True
            )

        run(wanted, options.jobs, done)
    write_page()
    if any(row["status"] in ("WRONG", "not compared") for row in read_results()["rows"].values()):
        sys.exit("not every network is right or refused; see the page")


if __name__ == "__main__":
    main()
