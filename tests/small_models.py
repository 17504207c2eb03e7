"""Small random models in the layouts that the package loads, made on the spot."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Wav2Vec2BertConfig, Xcodec2Config, Xcodec2Model

from llasa.codec.harmonic import Block, HarmonicCodec, HarmonicCodecConfig
from llasa.train.codec.harmonic_training import begin
from llasa.vocabulary import character_tokenizer

ALPHABET = " abcdefghijklmnopqrstuvwxyz.,?!'-;:"


def make_codec(seed: int = 0) -> Xcodec2Model:
    """A random codec of 4 x 4 x 4 = 64 codes, hop 320, whose codes vary with its input."""
    torch.manual_seed(seed)
    semantic = Wav2Vec2BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, output_hidden_size=32,
        feature_projection_input_dim=160, position_embeddings_type=None, conv_depthwise_kernel_size=7, layerdrop=0.0,
    )  # fmt: skip
    config = Xcodec2Config(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        head_dim=32, encoder_hidden_size=4, downsampling_ratios=[8, 5, 4, 2], semantic_model_config=semantic,
        quantization_dim=96, quantization_levels=[4, 4, 4],
    )  # fmt: skip
    model = Xcodec2Model(config).eval()
    # transformers' default initialisation lets the signal die; give every weight matrix unit gain.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, (weight.numel() / weight.shape[0]) ** -0.5)
            elif name.endswith("project_in.bias"):
                weight.zero_()
        model.acoustic_decoder.head.linear.weight.mul_(0.3)
    return model


def make_harmonic_codec(seed: int = 0) -> HarmonicCodec:
    """A small random codec of 4 x 4 x 4 = 64 codes with a harmonic head, whose codes and sound vary."""
    torch.manual_seed(seed)
    sizes = dict(
        encoder_hidden=32, encoder_layers=1, decoder_hidden=32, decoder_layers=2, fine_hidden=16, fine_layers=1
    )
    made = HarmonicCodec(HarmonicCodecConfig(quantization_levels=[4, 4, 4], **sizes)).eval()
    begin(made)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, Block):
                torch.nn.init.normal_(module.down.weight, std=0.05)
        made.decoder.out.bias[-1] = 1.0  # voiced
        torch.nn.init.normal_(made.decoder.out.weight, std=0.3)
    return made


def make_codec_folder(path: Path, seed: int = 0) -> Path:
    """Saves `make_codec` in the transformers layout."""
    make_codec(seed).save_pretrained(path)
    return path


def make_lm(vocabulary: int, seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """A random Llama of 2 layers x 64 with grouped-query attention."""
    torch.manual_seed(seed)
    settings: dict = {
        "vocab_size": vocabulary, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
        "tie_word_embeddings": False, "bos_token_id": 0, "pad_token_id": 1,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**(settings | changes))).eval()


def make_lm_folder(path: Path, codec: Path | str, codebook_size: int = 64, seed: int = 0, **changes: object) -> Path:
    """Saves a random Llama and its tokenizer as a model folder whose `config.json` names the codec."""
    tokenizer = character_tokenizer(ALPHABET, codebook_size, context=512)
    model = make_lm(len(tokenizer), seed, eos_token_id=tokenizer.eos_token_id, **changes)
    model.config.codec = str(codec)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
