import pytest
import torch

from llasa.codec import load_codec
from llasa.codec.harmonic import Block, HarmonicCodec, HarmonicCodecConfig
from llasa.train.codec import harmonic_training as harmonic


@pytest.fixture(scope="module")
def codec() -> HarmonicCodec:
    torch.manual_seed(0)
    sizes = dict(
        encoder_hidden=32, encoder_layers=1, decoder_hidden=32, decoder_layers=2, fine_hidden=16, fine_layers=1
    )
    made = HarmonicCodec(HarmonicCodecConfig(**sizes)).eval()
    harmonic.begin(made)
    for module in made.modules():
        if isinstance(module, Block):
            torch.nn.init.normal_(module.down.weight, std=0.05)
    return made


def test_every_code_comes_back_from_its_latents(codec: HarmonicCodec) -> None:
    codes = torch.arange(4**7)[None]
    latents = codec.quantizer.from_codes(codes)
    assert latents.abs().max() <= 1
    # What the tanh makes of these values are the latents again.
    even = torch.full((7,), 0.5 / (1.5 * 1.001))
    unbounded = torch.atanh(latents.clamp(-0.9999, 0.9999)) - torch.atanh(even)
    assert torch.equal(codec.quantizer.codes(unbounded), codes)


@torch.inference_mode()
def test_a_stretch_decoded_with_its_reach_around_it_is_the_whole(codec: HarmonicCodec) -> None:
    codes = torch.randint(4**7, (1, 120))
    whole = codec.decode(codes)
    shapes, _ = codec.decoder(codec.quantizer.from_codes(codes))
    _, phases = codec.sound(shapes)
    before, after = codec.reach
    first, last, fine, hop = 60, 70, codec.config.fine, codec.config.hop_length
    part, _ = codec.decoder(codec.quantizer.from_codes(codes[:, first - before : last + after]))
    # Two codes before the stretch its frames are exact, and filters ring no longer.
    phase = phases[:, (first - 2) * fine]
    sound, _ = codec.sound(part[:, (before - 2) * fine :], phase, (first - 2) * hop)
    assert torch.allclose(sound[:, 2 * hop : (2 + last - first) * hop], whole[:, first * hop : last * hop], atol=1e-5)


def test_pulses_hold_every_harmonic_alike(codec: HarmonicCodec) -> None:
    f0 = torch.full((1, 400), 200.0)
    pulses, _ = codec.pulses(f0, torch.ones(1, 400))
    spectrum = torch.fft.rfft(pulses[0, :16000]).abs()
    harmonics = spectrum[200:7900:200]
    assert harmonics.max() / harmonics.min() < 1.01
    assert spectrum[100:7900:200].max() < 0.01 * harmonics.min()
    assert pulses.square().mean() == pytest.approx(1.0, abs=0.05)


def test_a_saved_codec_is_the_same_codec(codec: HarmonicCodec, tmp_path) -> None:  # type: ignore[no-untyped-def]
    codec.save_pretrained(tmp_path)
    again = load_codec(tmp_path).model
    samples = 0.1 * torch.randn(1, 320 * 20, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        codes = codec.encode(samples)
        assert codes.shape == (1, 20)
        assert torch.equal(again.encode(samples), codes)
        assert torch.equal(again.decode(codes), codec.decode(codes))
