"""What librosa finds in made-up sounds. `python tests/measure/from_librosa.py` writes librosa.npz anew.

It is kept in a file since librosa's numba compiles for 20 s in a new environment.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "librosa.npz"
RATE, SIZE, HOP, LOWEST = 16000, 1024, 160, 60
HIGHEST = (400, 500)


def sounds() -> dict[str, np.ndarray]:
    """A second each of a gliding harmonic tone with pauses, of noise, and of silence, at 16 kHz."""
    rng = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.5 * time)) / RATE
    tone = sum((np.sin(k * phase) / k for k in range(1, 20)), np.zeros(RATE))
    gate = np.sin(2 * np.pi * 2 * time) > -0.5
    return {
        "tone": 0.1 * gate * tone + 0.002 * rng.normal(size=RATE),
        "noise": rng.normal(size=RATE),
        "silence": 0 * time,
    }


if __name__ == "__main__":
    import librosa
    from resemblyzer.audio import wav_to_mel_spectrogram

    found = {}
    for name, sound in sounds().items():
        found[f"mel of {name}"] = wav_to_mel_spectrogram(sound.astype(np.float32))
        for highest in HIGHEST:
            pitch = librosa.yin(
                sound, fmin=LOWEST, fmax=highest, sr=RATE, frame_length=SIZE, hop_length=HOP, center=False
            )
            found[f"pitch of {name} to {highest}"] = pitch.astype(np.float32)
    np.savez_compressed(FILE, **found)
