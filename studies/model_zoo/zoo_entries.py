"""What to export: one entry per network with its factory, inputs, symbols and provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeAlias

import torch

_lib = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    # torchvision's compiled operators need the matching CUDA build; only their names are needed to import it.
    _lib.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

VISION = "BSD-3-Clause"
APACHE = "Apache-2.0"
Inputs: TypeAlias = Callable[..., "tuple[Any, ...] | dict[str, Any]"]


@dataclass(frozen=True)
class Entry:
    """One network: ``build`` makes the module (on the meta device), ``args`` its inputs for given symbol values."""

    name: str
    build: Callable[[], Any]
    args: Inputs
    library: str
    what: str
    task: str = "image classification"
    licence: str = VISION
    symbols: Mapping[str, int] = field(default_factory=lambda: {"N": 1})
    assumed: str = ""
    context: str = ""  # of a language model: tokens it was made for
    shorten: tuple[tuple[str, str], ...] = ()

    def source(self) -> str:
        """Provenance line: library, version, definition."""
        return f"{self.library} {version(self.library)} {self.what}"


def images(size: int | tuple[int, int], channels: int = 3) -> Inputs:
    """Inputs of an image network."""
    height, width = size if isinstance(size, tuple) else (size, size)

    def make(N: int) -> tuple[Any, ...]:
        return (torch.empty(N, channels, height, width),)

    return make


def tokens(*names: str, **floats: tuple[int, ...]) -> Inputs:
    """Inputs of a language network: int64 (N, S) under each name, and float tensors (N, ...)."""

    def make(N: int, S: int) -> dict[str, Any]:
        ids = {name: torch.zeros(N, S, dtype=torch.int64) for name in names}
        return ids | {name: torch.empty(N, *shape) for name, shape in floats.items()}

    return make


def floats(**shapes: tuple[int, ...]) -> Inputs:
    """Float inputs (N, ...) by name."""

    def make(N: int) -> dict[str, Any]:
        return {name: torch.empty(N, *shape) for name, shape in shapes.items()}

    return make


class Part(torch.nn.Module):
    """A model with the outputs of interest, its inputs under their own names."""

    def __init__(self, model: Any, outputs: tuple[str, ...], **fixed: Any) -> None:
        super().__init__()
        self.m, self.outputs, self.fixed = model, outputs, fixed

    def forward(self, **inputs: Any) -> tuple[Any, ...]:
        out = self.m(**inputs, **self.fixed, return_dict=True)
        return tuple(getattr(out, name) for name in self.outputs)


def torchvision_models() -> list[Entry]:
    """Classification networks of torchvision at the input size of their published figures."""
    from torchvision import models

    sizes: dict[str, int] = {
        "inception_v3": 299, "efficientnet_b1": 240, "efficientnet_b2": 288, "efficientnet_b3": 300,
        "efficientnet_b4": 380, "efficientnet_b5": 456, "efficientnet_b6": 528, "efficientnet_b7": 600,
        "efficientnet_v2_s": 384, "efficientnet_v2_m": 480, "efficientnet_v2_l": 480, "swin_v2_t": 256,
    }  # fmt: skip
    names = [
        "alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn",
        "squeezenet1_0", "squeezenet1_1", "googlenet", "inception_v3", "resnet18", "resnet34", "resnet50",
        "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2",
        "wide_resnet101_2", "densenet121", "densenet161", "densenet169", "densenet201", "mobilenet_v2",
        "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3",
        "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
        "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
        "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_s", "efficientnet_v2_m",
        "efficientnet_v2_l", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf",
        "regnet_y_8gf", "regnet_y_16gf", "regnet_x_400mf", "regnet_x_3_2gf", "regnet_x_8gf", "convnext_tiny",
        "convnext_small", "convnext_base", "convnext_large", "vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32",
        "swin_t", "swin_s", "swin_b", "swin_v2_t",
    ]  # fmt: skip
    extra: dict[str, dict[str, Any]] = {
        "googlenet": {"init_weights": False, "aux_logits": False},
        "inception_v3": {"init_weights": False, "aux_logits": False},
    }

    def entry(name: str) -> Entry:
        size = sizes.get(name, 224)
        what = f"{name} at {size}x{size}"
        return Entry(name, lambda: models.get_model(name, **extra.get(name, {})), images(size), "torchvision", what)

    return [entry(name) for name in names]


class Detector(torch.nn.Module):
    """Backbone and head of a torchvision detector: box decoding and suppression run on the host and are left out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, x: Any) -> Any:
        return self.head(list(self.backbone(x).values()))


def torchvision_others() -> list[Entry]:
    """Segmentation and detection networks of torchvision."""
    from torchvision.models import detection, segmentation

    none = {"weights": None, "weights_backbone": None}

    found = [
        Entry(
            name, lambda make=make: make(**none), images(520), "torchvision",
            f"{name} at 520x520, without auxiliary head", "semantic segmentation",
        )
        for name, make in (
            ("deeplabv3_resnet50", segmentation.deeplabv3_resnet50),
            ("deeplabv3_mobilenet_v3_large", segmentation.deeplabv3_mobilenet_v3_large),
            ("fcn_resnet50", segmentation.fcn_resnet50),
            ("lraspp_mobilenet_v3_large", segmentation.lraspp_mobilenet_v3_large),
        )
    ]  # fmt: skip
    found += [
        Entry(
            name, lambda make=make: Detector(make(**none)), images(size), "torchvision",
            f"{definition} at {size}x{size}, backbone and head", "object detection",
        )
        for name, definition, make, size in (
            ("retinanet_resnet50", "retinanet_resnet50_fpn", detection.retinanet_resnet50_fpn, 800),
            ("fcos_resnet50", "fcos_resnet50_fpn", detection.fcos_resnet50_fpn, 800),
            ("ssd300_vgg16", "ssd300_vgg16", detection.ssd300_vgg16, 300),
            ("ssdlite320_mobilenet_v3_large",) * 2 + (detection.ssdlite320_mobilenet_v3_large, 320),
        )
    ]  # fmt: skip
    return found


def timm_models() -> list[Entry]:
    """Networks of timm at their own input size."""
    import timm

    names = [
        "levit_128", "levit_256", "dla34", "dla60", "dla102x", "dla46_c",
        "dla102x2", "repvgg_a0", "repvgg_a2", "repvgg_b0",
        "repvgg_b1", "repvgg_b2", "repvgg_b3", "mobilevit_s", "hrnet_w18", "hrnet_w30", "hrnet_w32",
        "hrnet_w40", "hrnet_w44", "hrnet_w48", "hrnet_w64", "inception_v4", "inception_resnet_v2",
        "mixer_b16_224", "ghostnet_050", "ghostnet_100", "ghostnet_130", "fbnetc_100", "tf_efficientnetv2_s",
        "tf_efficientnetv2_m", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
        "efficientnet_lite3", "efficientnet_lite4", "resnet18d", "resnet34d", "resnet50c", "resnet50d",
        "resnet101d", "resnet152d", "resnet200d", "seresnet18", "seresnet34", "seresnet50", "ecaresnet50t",
        "resnext50d_32x4d", "resnext101_32x4d", "seresnext50_32x4d", "seresnext101_32x4d", "legacy_senet154",
        "res2net50_14w_8s", "res2net50_26w_4s", "res2net101_26w_4s", "resnest50d", "resnest50d_1s4x24d",
        "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit_small_patch16_224",
        "vit_tiny_patch16_224", "vit_small_patch16_224",
        "vit_base_patch16_384", "vit_large_patch16_384", "vit_base_patch32_384", "vit_large_patch32_384",
        "swin_base_patch4_window12_384", "swin_large_patch4_window7_224", "swin_large_patch4_window12_384",
        "xception41", "xception65", "xception71", "darknet53", "cspdarknet53", "dpn68", "dpn92", "dpn98",
        "dpn107", "dpn131", "mixnet_s", "mixnet_m", "mixnet_l", "rexnet_100", "rexnet_130", "rexnet_150",
        "rexnet_200", "rexnet_300", "regnetx_002", "regnetx_040", "regnetx_320", "hgnet_tiny", "hgnet_small",
        "hgnet_base", "hgnetv2_b2", "hgnetv2_b5", "hgnetv2_b6", "pvt_v2_b0", "pvt_v2_b1", "pvt_v2_b2",
        "twins_pcpvt_small", "twins_pcpvt_base", "twins_svt_small", "twins_svt_large", "nextvit_small",
        "nextvit_base", "nextvit_large", "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv3_small_075",
        "densenet264d", "resnext101_32x16d", "resnext101_32x32d", "efficientformer_l1", "edgenext_small",
    ]  # fmt: skip

    def entry(name: str) -> Entry:
        size = timm.get_pretrained_cfg(name).input_size[-1]
        return Entry(
            name, lambda: timm.create_model(name), images(size), "timm", f"{name} at {size}x{size}", licence=APACHE
        )

    return [entry(name) for name in names]


def resnet_variants() -> list[Entry]:
    """ResNets timm has no name for, from its parts: D = deep stem and average-pooled shortcut, SE = squeeze-excitation."""
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    depths = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
    deep = {"stem_width": 32, "stem_type": "deep", "avg_down": True}
    squeeze = {"block_args": {"attn_layer": "se"}}

    def entry(name: str, depth: int, groups: int, width: int, parts: dict[str, Any]) -> Entry:
        block = BasicBlock if depth < 50 else Bottleneck

        def build() -> Any:
            return ResNet(block, depths[depth], cardinality=groups, base_width=width, **parts)

        what = f"ResNet, depth {depth}, {groups} groups of {width}, {', '.join(parts) or 'plain'}, at 224x224"
        return Entry(name, build, images(224), "timm", what, licence=APACHE)

    found = [
        entry(f"resnext{depth}{d}_{groups}x4d", depth, groups, 4, deep if d else {})
        for depth, d, groups in (
            (50, "", 64), (50, "d", 64), (101, "d", 32), (101, "d", 64), (152, "", 32), (152, "d", 32), (152, "", 64),
            (152, "d", 64),
        )
    ]  # fmt: skip
    found += [entry(f"seresnet{depth}d", depth, 1, 64, deep | squeeze) for depth in (18, 34, 50)]
    return [*found, entry("seresnext50d_32x4d", 50, 32, 4, deep | squeeze)]


def language_models() -> list[Entry]:
    """Encoders and decoders of transformers; configurations written out from the published hyper-parameters."""
    import transformers as hf

    def bert(hidden: int, layers: int, heads: int, **more: Any) -> Any:
        return hf.BertConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden,
            **more,
        )

    def text(
        name: str, what: str, build: Callable[[], Any], default: int, *names: str, task: str, **extra: Any
    ) -> Entry:
        return Entry(
            name,
            build,
            tokens(*(names or ("input_ids",))),
            "transformers",
            what,
            task,
            APACHE,
            {"N": 1, "S": default},
            **extra,
        )

    both = ("last_hidden_state", "pooler_output")
    logits = ("start_logits", "end_logits")
    squad = ("input_ids", "attention_mask", "token_type_ids")
    features = "language encoding"
    base, large = bert(768, 12, 12), bert(1024, 24, 16)
    found = [
        text("bert_base", "BertModel, 12 layers of 768", lambda: Part(hf.BertModel(base), both), 128,
             "input_ids", "attention_mask", "token_type_ids", task=features),
        text("bert_large", "BertForQuestionAnswering, 24 layers of 1024", lambda: Part(
             hf.BertForQuestionAnswering(large), logits), 384, *squad, task="question answering"),
        text("distilbert", "DistilBertModel", lambda: Part(hf.DistilBertModel(hf.DistilBertConfig()), both[:1]), 128,
             task=features),
        text("roberta_base", "RobertaModel", lambda: Part(hf.RobertaModel(hf.RobertaConfig(
             vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)), both), 128,
             task=features),
        text("t5_small", "T5ForConditionalGeneration, encoder and decoder of equal length", lambda: Part(
             hf.T5ForConditionalGeneration(hf.T5Config()), ("logits",), use_cache=False), 128, "input_ids",
             "decoder_input_ids", task="translation"),
        text("t5_base", "T5ForConditionalGeneration, encoder and decoder of equal length", lambda: Part(
             hf.T5ForConditionalGeneration(hf.T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12)),
             ("logits",), use_cache=False), 128, "input_ids", "decoder_input_ids", task="translation"),
    ]  # fmt: skip
    for name, width, layers, heads in (
        ("deberta_v3_xsmall", 384, 12, 6), ("deberta_v3_base", 768, 12, 12), ("deberta_v3_large", 1024, 24, 16),
    ):  # fmt: skip
        config = hf.DebertaV2Config(
            vocab_size=128100, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * width, relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm",
            share_att_key=True, pos_att_type=["p2c", "c2p"], max_relative_positions=-1, position_biased_input=False,
            type_vocab_size=0,
        )  # fmt: skip
        found.append(
            text(
                name,
                "DebertaV2Model",
                lambda config=config: Part(hf.DebertaV2Model(config), both[:1]),
                128,
                task=features,
            )
        )
    for name, width, layers, heads in (
        ("gpt2", 768, 12, 12), ("gpt2_medium", 1024, 24, 16), ("gpt2_large", 1280, 36, 20), ("gpt2_xl", 1600, 48, 25),
    ):  # fmt: skip
        gpt = hf.GPT2Config(n_embd=width, n_layer=layers, n_head=heads)
        found.append(
            text(
                name, f"GPT2LMHeadModel, {layers} layers of {width}, no past",
                lambda gpt=gpt: Part(hf.GPT2LMHeadModel(gpt), ("logits",), use_cache=False), 128,
                task="text generation", context="1024 tokens (rows of its position table)",
            )
        )  # fmt: skip
    for size, width, layers, heads in (
        ("tiny", 384, 4, 6), ("base", 512, 6, 8), ("small", 768, 12, 12), ("medium", 1024, 24, 16),
        ("large", 1280, 32, 20),
    ):  # fmt: skip
        whisper = hf.WhisperConfig(
            d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads,
            decoder_attention_heads=heads, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width,
        )  # fmt: skip
        found.append(
            Entry(
                f"whisper_{size}_encoder",
                lambda whisper=whisper: Part(hf.WhisperModel(whisper).encoder, both[:1]),
                floats(input_features=(80, 3000)), "transformers", f"WhisperModel encoder, {layers} layers of {width}",
                "speech recognition", APACHE,
            )
        )  # fmt: skip
        found.append(
            Entry(
                f"whisper_{size}_decoder", lambda whisper=whisper: WhisperDecoder(whisper),
                tokens("input_ids", encoder_hidden_states=(1500, width)), "transformers",
                f"WhisperForConditionalGeneration decoder, {layers} layers of {width}, no past",
                "speech recognition", APACHE,
                {"N": 1, "S": 64},
            )
        )  # fmt: skip
    clip = hf.CLIPVisionConfig(patch_size=16)
    found.append(
        Entry("clip_vit_base_patch16", lambda: Part(hf.CLIPVisionModelWithProjection(clip), ("image_embeds",)),
              floats(pixel_values=(3, 224, 224)), "transformers", "CLIPVisionModelWithProjection",
              "image encoding", APACHE)
    )  # fmt: skip
    return found


class WhisperDecoder(torch.nn.Module):
    """Token side of Whisper: embedding, decoder layers with cross-attention, and the tied vocabulary projection."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        import transformers as hf

        model = hf.WhisperForConditionalGeneration(config)
        self.decoder, self.proj_out = model.model.decoder, model.proj_out
        self.proj_out.weight = self.decoder.embed_tokens.weight

    def forward(self, input_ids: Any, encoder_hidden_states: Any) -> Any:
        hidden = self.decoder(input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, use_cache=False)[0]
        return self.proj_out(hidden)


class StableDiffusionXL(torch.nn.Module):
    """One denoising step of the SDXL base UNet."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.m = UNet2DConditionModel(
            sample_size=128, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280), cross_attention_dim=2048, transformer_layers_per_block=[1, 2, 10],
            attention_head_dim=[5, 10, 20], use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        )  # fmt: skip

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any, text_embeds: Any, time_ids: Any) -> Any:
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self.m(sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)[0]


def diffusion_models() -> list[Entry]:
    """Denoising networks of diffusers: one step."""

    def sd15() -> Any:
        from diffusers import UNet2DConditionModel

        return Part(UNet2DConditionModel(sample_size=64, cross_attention_dim=768), ("sample",))

    short = (("transformer_blocks.", "tb."), ("down_blocks.", "down."), ("up_blocks.", "up."), ("attentions.", "attn."))
    return [
        Entry("sd15_unet", sd15, floats(sample=(4, 64, 64), timestep=(), encoder_hidden_states=(77, 768)), "diffusers",
              "UNet2DConditionModel of Stable Diffusion 1.5, 512x512", "image generation", APACHE, shorten=short),
        Entry("sdxl_unet", StableDiffusionXL, floats(
                sample=(4, 128, 128), timestep=(), encoder_hidden_states=(77, 2048), text_embeds=(1280,),
                time_ids=(6,)),
              "diffusers", "UNet2DConditionModel of Stable Diffusion XL base, 1024x1024", "image generation", APACHE,
              shorten=short),
    ]  # fmt: skip


ENTRIES: list[Entry] = [
    *torchvision_models(), *torchvision_others(), *language_models(), *diffusion_models(), *timm_models(),
    *resnet_variants(),
]  # fmt: skip
