import numpy as np
import torch

from llasa.codec.harmonic import HarmonicCodec, HarmonicCodecConfig
from llasa.train.codec import harmonic_training as harmonic


def vowel(seconds: float) -> np.ndarray:
    time = np.arange(int(16000 * seconds)) / 16000
    return sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20)).astype(np.float32)


def utterances() -> harmonic.Utterances:
    wave, track, _ = harmonic.prepare(vowel(2.0), 320, np.full(400, 150.0, np.float32))
    length = torch.tensor([len(wave)])
    return harmonic.Utterances(
        torch.from_numpy(wave), torch.from_numpy(track), torch.zeros(1, dtype=torch.long), length, None, torch.ones(1)
    )


def test_prepare_cuts_silence_and_levels_loudness() -> None:
    spoken = np.concatenate([np.zeros(16000, np.float32), 0.01 * vowel(1.0), np.zeros(16000, np.float32)])
    wave, track, cut = harmonic.prepare(spoken, 320, np.full(600, 150.0, np.float32))
    assert 0.85 < cut < 0.92
    assert len(wave) % 320 == 0
    assert len(track) == len(wave) // 80
    assert 1.1 * 16000 < len(wave) < 1.4 * 16000
    level = np.sqrt(np.mean((wave / 32767.0) ** 2))
    assert 0.9 * harmonic.LEVEL < level < 1.1 * harmonic.LEVEL


def test_a_fundamental_goes_on_across_what_has_none() -> None:
    line, voiced = harmonic.continuous(torch.tensor([[0.0, 100, 0, 0, 130, 0], [0, 0, 0, 0, 0, 0]]))
    assert torch.allclose(line[0], torch.tensor([100.0, 100, 110, 120, 130, 130]))
    assert voiced[0].tolist() == [0, 1, 0, 0, 1, 0]
    assert line[1].unique().tolist() == [harmonic.MIDDLE]


def test_faster_crops_have_a_higher_fundamental() -> None:
    batch = harmonic.crops(utterances(), 1, 60, 320, torch.Generator().manual_seed(0))
    quick = harmonic.faster(batch, 50, 320)
    assert quick["wave"].shape == (1, 50 * 320)
    peak = torch.fft.rfft(quick["wave"][0]).abs().argmax() * 16000 / (50 * 320)
    assert abs(float(peak) - 180) < 2
    assert float(quick["f0"].median()) == 180


def test_training_brings_the_sound_nearer() -> None:
    torch.manual_seed(0)
    sizes = dict(
        encoder_hidden=32, encoder_layers=1, decoder_hidden=32, decoder_layers=1, fine_hidden=32, fine_layers=1
    )
    codec = HarmonicCodec(HarmonicCodecConfig(**sizes))
    harmonic.begin(codec)
    learner, data = harmonic.Learner(codec), utterances()
    rng, optimiser = torch.Generator().manual_seed(0), torch.optim.AdamW(learner.parameters(), 5e-3)
    losses = []
    for _ in range(25):
        batch = harmonic.crops(data, 2, 32, 320, rng)
        made, terms = learner(batch)
        spectra = harmonic.spectral_loss(made, batch["wave"])
        (spectra + terms["pitch"] + 0.2 * terms["voice"] + 0.3 * terms["spread"]).backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(spectra.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert float(terms["pitch"].detach()) < 0.1
