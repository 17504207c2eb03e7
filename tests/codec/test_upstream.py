"""The two forms of a codec's tensors, against torch's own weight norm and the specification of upstream's model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import make_codec
from torch.nn.utils.parametrizations import weight_norm
from upstream_codec import hub_tensors, make_upstream

from llasa.codec import upstream
from llasa.errors import LlasaError


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 5), st.integers(1, 16), st.sampled_from([torch.float32, torch.float16]),
    st.integers(0, 2**32), st.floats(1e-3, 1e3), st.booleans(),
)  # fmt: skip
def test_weight_norm_comes_back_to_the_bit(
    channels: int, width: int, taps: int, dtype: torch.dtype, seed: int, scale: float, silent: bool
):
    weight = (torch.randn(channels, width, taps, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)
    if silent:
        weight[0] = 0
    g, v = upstream.unfuse(weight)
    assert g.shape == (channels, 1, 1)
    assert torch.equal(upstream.fuse(g, v), weight)


def test_weight_norm_is_torchs():
    torch.manual_seed(0)
    layer = weight_norm(torch.nn.Conv1d(24, 48, 7))
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    with torch.no_grad():
        g.uniform_(0.5, 2)
        v.mul_(3)
        assert torch.equal(upstream.fuse(g, v), layer.weight)


def test_every_name_of_transformers_has_one_of_upstreams_and_none_is_shared():
    names = list(make_codec().state_dict())
    places = [upstream.upstream_name(name) for name in names]
    assert len(set(places)) == len(names)
    assert {place.split(".")[0] for place in places} == set(upstream.TOPS)
    with pytest.raises(KeyError):
        upstream.upstream_name("discriminator.conv.weight")


def test_both_ways_give_every_tensor_again():
    model = make_codec()
    before = model.state_dict()
    there = upstream.to_upstream(before, model.config)
    after = upstream.from_upstream(there, model.config, before)
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = upstream.to_upstream(after, model.config)
    assert all(torch.equal(there[name], again[name]) for name in there)


def test_what_is_written_has_upstreams_names_shapes_and_filters():
    spec = make_upstream()
    tensors = hub_tensors(spec)
    config = upstream.infer_config(tensors)
    names = [name for name in tensors if ".layers.16." not in name]
    back = upstream.to_upstream(upstream.from_upstream(tensors, config, transformers_names(config)), config)
    assert [name for name in names if back[name].shape != tensors[name].shape] == []
    for name in names:
        if not name.endswith(("weight_g", "weight_v")):
            assert torch.equal(back[name], tensors[name]), name
    buffers = dict(spec.named_buffers())
    extra = back.keys() - names
    assert extra - {"generator.head.istft.window"} == {
        name.replace("downsample.filter", "downsample.lowpass.filter") for name in buffers if name.endswith("filter")
    }
    np.testing.assert_array_equal(
        back["CodecEnc.conv_final_block.0.upsample.filter"], buffers["CodecEnc.conv_final_block.0.upsample.filter"]
    )


def test_sizes_are_read_off_the_shapes():
    config = upstream.infer_config(hub_tensors(make_upstream()))
    semantic = config.semantic_model_config
    assert (config.hidden_size, config.num_attention_heads, config.head_dim, config.num_hidden_layers) == (
        128,
        2,
        64,
        2,
    )
    assert (list(config.downsampling_ratios), config.encoder_hidden_size) == ([8, 5, 4, 2], 4)
    assert (list(config.quantization_levels), config.quantization_dim) == ([4, 4, 4], 160)
    assert (semantic.num_hidden_layers, semantic.hidden_size, semantic.num_attention_heads) == (16, 32, 2)
    assert (semantic.left_max_position_embeddings, semantic.conv_depthwise_kernel_size) == (64, 7)


def test_attention_that_upstream_has_not_is_refused():
    model = make_codec()
    model.config.num_key_value_heads = 1
    with pytest.raises(LlasaError, match="shares keys among heads"):
        upstream.to_upstream(model.state_dict(), model.config)


def transformers_names(config: object) -> list[str]:
    from transformers import Xcodec2Model

    return list(Xcodec2Model(config).state_dict())
