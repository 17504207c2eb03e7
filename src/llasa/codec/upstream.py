"""Converts a codec's tensors between transformers' names and forms and those of X-codec2's own code ("upstream").

`convert.py` reads and writes the files. One table, from transformers' names to upstream's, serves both directions.
Besides names, three things differ:

- Upstream's acoustic encoder stores weight norm: for each channel a direction v and a length g. transformers stores
  their product. Converted back, v is the product itself and g its length, which gives the same product to the bit.
- Upstream's attention stores queries, keys and values in one matrix and rotates neighbouring dimensions. transformers
  rotates halves, so the rows of queries and keys are reordered.
- Upstream stores the semantic encoder's layers above the one it uses, and filters that follow from their sizes. The
  layers are left out, and the filters are computed again.

So a codec that goes to upstream's layout and back keeps every tensor. One that comes from upstream's layout keeps
everything that affects codes and sound; the unused layers are lost, and how a convolution's scale was split between v
and g.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from transformers import Wav2Vec2BertConfig, Xcodec2Config
from transformers.models.xcodec2.modeling_xcodec2 import kaiser_sinc_filter1d

from llasa.errors import LlasaError

Tensors = dict[str, torch.Tensor]

TOPS = ("semantic_model", "SemanticEncoder_module", "CodecEnc", "generator", "fc_prior", "fc_post_a")
FIRST = "CodecEnc.conv_blocks.0.weight_v"  # a tensor that every codec has
SEMANTIC_LAYERS = 16  # upstream uses the output of this layer, of 24

_HEAD = 64  # dimensions of an attention head of upstream's decoder; no tensor's shape shows it
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")  # in the order in which upstream's matrix holds them
_UNIT = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
_ENDS = {"conv1": "conv_blocks.0", "snake1": "conv_final_block.0", "conv2": "conv_final_block.1"}
_RULES = (
    (r"^semantic_encoder\.", "semantic_model."),
    (r"^semantic_adapter\.conv1\.", "SemanticEncoder_module.initial_conv."),
    (r"^semantic_adapter\.conv2\.", "SemanticEncoder_module.residual_blocks.1."),
    (r"^semantic_adapter\.conv3\.", "SemanticEncoder_module.residual_blocks.3."),
    (r"^semantic_adapter\.conv4\.", "SemanticEncoder_module.final_conv."),
    (r"^fc_encoder\.", "fc_prior."),
    (r"^quantizer\.", "generator.quantizer."),
    (r"^acoustic_decoder\.fc\.", "fc_post_a."),
    (r"^acoustic_decoder\.head\.linear\.", "generator.head.out."),
    (r"^acoustic_decoder\.norm\.", "generator.backbone.final_layer_norm."),
    (r"^acoustic_decoder\.layers\.(\d+)\.self_attn\.o_proj\.", r"generator.backbone.transformers.\1.att.c_proj."),
    (r"^acoustic_decoder\.layers\.(\d+)\.input_layernorm\.", r"generator.backbone.transformers.\1.att_norm."),
    (r"^acoustic_decoder\.layers\.(\d+)\.post_attention_layernorm\.", r"generator.backbone.transformers.\1.ffn_norm."),
    (r"^acoustic_decoder\.layers\.", "generator.backbone.transformers."),
    (r"^acoustic_decoder\.", "generator.backbone."),
)
# The spelling on the right is the hub's and ours; the left one appears when upstream's package saves a model again.
_SPELLINGS = (
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
    (".act.bias", ".act.beta"),
)


def upstream_name(name: str) -> str:
    """Upstream's name of one of transformers' tensors, except for queries, keys, values and weight norm."""
    if within := re.fullmatch(r"acoustic_encoder\.block\.(\d+)\.(?:res_unit(\d)\.)?([a-z]+\d)\.(.+)", name):
        block, unit, part, rest = within.groups()
        inner = f"{int(unit) - 1}.block.{_UNIT[part]}" if unit else f"{3 + _UNIT[part]}"
        return f"CodecEnc.conv_blocks.{int(block) + 1}.block.{inner}.{rest}"
    if end := re.fullmatch(r"acoustic_encoder\.([a-z]+\d)\.(.+)", name):
        return f"CodecEnc.{_ENDS[end[1]]}.{end[2]}"
    for pattern, replacement in _RULES:
        changed, count = re.subn(pattern, replacement, name)
        if count:
            return changed
    raise KeyError(name)


def respell(tensors: Tensors) -> Tensors:
    """The codec's tensors in a checkpoint, in the hub's spelling."""
    result: Tensors = {}
    for name, tensor in tensors.items():
        for other, ours in _SPELLINGS:
            name = name.replace(other, ours)
        if name.split(".")[0] in TOPS:
            result[name] = tensor
    return result


def fuse(g: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Weight norm: g * v / |v|, with the length over all but the first dimension; g is (C, 1, ...) and v (C, ...).

    Uses the same operation as upstream, so that the result is the same to the bit.
    """
    # For tensors from `unfuse` the result is v itself, even on a processor that sums the length in another order.
    return torch.where(g == _length(v), v, torch._weight_norm(v, g, 0))


def unfuse(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """g (C, 1, ...) and v (C, ...) from which `fuse` makes `weight` to the bit: its lengths, and the weight itself."""
    g = _length(weight)
    # A channel of zeros has no direction, so any direction of length 0 is right.
    return g, torch.where(g == 0, torch.ones_like(weight), weight)


def from_upstream(tensors: Tensors, config: Xcodec2Config, names: Iterable[str]) -> Tensors:
    """Upstream's tensors (from `respell`) in transformers' form, under transformers' `names`, without missing ones."""
    result: Tensors = {}
    for name in names:
        place = upstream_name(name)
        stem, module = _split(name, place)
        if module in _PROJECTIONS:
            matrix = tensors.get(_joint(stem, module))
            if matrix is not None:
                rows = matrix.chunk(3)[_PROJECTIONS.index(module)]
                result[name] = rows if module == "v_proj" else _halves(rows, config.num_attention_heads)
        elif _is_normed(name):
            if f"{stem}.weight_g" in tensors and f"{stem}.weight_v" in tensors:
                result[name] = fuse(tensors[f"{stem}.weight_g"], tensors[f"{stem}.weight_v"])
        elif place in tensors:
            result[name] = tensors[place]
    return result


def to_upstream(tensors: Tensors, config: Xcodec2Config) -> Tensors:
    """All of transformers' tensors in upstream's form, in the hub's spelling.

    Raises:
        LlasaError: upstream's layout cannot express the decoder's attention.
    """
    heads = config.num_attention_heads
    if config.num_key_value_heads != heads or config.attention_bias or heads * config.head_dim != config.hidden_size:
        raise LlasaError(
            "the codec's decoder shares keys among heads, or has biases, which the original layout cannot express: "
            "keep it in transformers' layout"
        )
    result: Tensors = {}
    for name, tensor in tensors.items():
        place = upstream_name(name)
        stem, module = _split(name, place)
        if module == "q_proj":
            q, k, v = (tensors[name.replace("q_proj", other)] for other in _PROJECTIONS)
            result[_joint(stem, module)] = torch.cat([_neighbours(q, heads), _neighbours(k, heads), v])
        elif _is_normed(name):
            result[f"{stem}.weight_g"], result[f"{stem}.weight_v"] = unfuse(tensor)
        elif module not in _PROJECTIONS:
            result[place] = tensor
        if place.endswith(".act.alpha"):
            activation = place.removesuffix(".act.alpha")
            for part in ("upsample.filter", "downsample.lowpass.filter"):  # twice the rate and back, in 12 taps
                result[f"{activation}.{part}"] = kaiser_sinc_filter1d(0.25, 0.3, 12)
    result["generator.head.istft.window"] = torch.hann_window(config.n_fft)
    return {name: tensor.contiguous() for name, tensor in result.items()}


def infer_config(tensors: Tensors, semantic: Wav2Vec2BertConfig | None = None) -> Xcodec2Config:
    """A config from the shapes of upstream's tensors (from `respell`), and otherwise from upstream's code.

    Args:
        semantic: the config of the semantic encoder, if it is known.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the sizes do not fit together.
    """
    hidden = tensors["generator.backbone.embed.weight"].shape[0]
    dimensions, quantised = tensors["generator.quantizer.project_in.weight"].shape
    blocks = range(1, _count("CodecEnc.conv_blocks", tensors))
    return Xcodec2Config(
        hidden_size=hidden,
        intermediate_size=tensors["generator.backbone.transformers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_count("generator.backbone.transformers", tensors),
        num_attention_heads=hidden // _HEAD,
        num_key_value_heads=hidden // _HEAD,
        head_dim=_HEAD,
        encoder_hidden_size=tensors[FIRST].shape[0],
        # A convolution with a stride of n has a kernel of 2 n.
        downsampling_ratios=[tensors[f"CodecEnc.conv_blocks.{i}.block.4.weight_v"].shape[-1] // 2 for i in blocks],
        semantic_model_config=semantic or _infer_semantic(tensors),
        quantization_dim=quantised,
        quantization_levels=[4] * dimensions,
    )


def upstream_config(config: Xcodec2Config) -> dict[str, Any]:
    """The content of upstream's own `config.json`."""
    semantic: Any = config.semantic_model_config
    return {
        "architectures": ["XCodec2Model"],
        "model_type": "xcodec2",
        "semantic_hidden_size": semantic.hidden_size,
        "codec_encoder_hidden_size": config.hidden_size,
        "codec_decoder_hidden_size": config.hidden_size,
        "use_vocos": True,
    }


def _infer_semantic(tensors: Tensors) -> Wav2Vec2BertConfig:
    layer = "semantic_model.encoder.layers.0"
    hidden, features = tensors["semantic_model.feature_projection.projection.weight"].shape
    positions, head = tensors[f"{layer}.self_attn.distance_embedding.weight"].shape
    return Wav2Vec2BertConfig(
        hidden_size=hidden,
        num_hidden_layers=SEMANTIC_LAYERS,
        num_attention_heads=hidden // head,
        intermediate_size=tensors[f"{layer}.ffn1.intermediate_dense.weight"].shape[0],
        feature_projection_input_dim=features,
        left_max_position_embeddings=positions - 9,  # 64 back; then the frame itself and 8 ahead
        conv_depthwise_kernel_size=tensors[f"{layer}.conv_module.depthwise_conv.weight"].shape[-1],
        mask_time_prob=0.05 if "semantic_model.masked_spec_embed" in tensors else 0.0,  # 0 has no such tensor
        apply_spec_augment=False,
    )


def _count(prefix: str, names: Iterable[str]) -> int:
    """The number of numbered modules under a name."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(found[1]) for name in names if (found := pattern.match(name))), default=-1)


def _split(name: str, place: str) -> tuple[str, str]:
    """The modules that hold a tensor: upstream's, and the last part of transformers'."""
    return place.removesuffix(".weight"), name.removesuffix(".weight").rpartition(".")[2]


def _joint(stem: str, module: str) -> str:
    """The matrix in which upstream keeps a projection."""
    return stem.replace(f"self_attn.{module}", "att.c_attn.weight")


def _is_normed(name: str) -> bool:
    return name.startswith("acoustic_encoder.") and name.endswith(".weight")


def _length(weight: torch.Tensor) -> torch.Tensor:
    """(C, 1, ...) lengths, summed in double precision, so that they are the same on every machine."""
    squares = weight.double().square().sum(list(range(1, weight.ndim)), keepdim=True)
    return squares.sqrt().to(weight.dtype)


def _halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorders rows (heads * D, N): from neighbours that rotate together to halves of a head that do."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _neighbours(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """The inverse of `_halves`."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
