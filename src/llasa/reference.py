"""Makes a recording, as people have it, a reference: the speech alone, without offset, at one level.

Speech is told from silence and noise by two measures that need no model. Frames with sound stand out from the noise
floor. Somewhere near them a voice has a pitch, which noise and silence have not.
"""

import numpy as np

from llasa import audio
from llasa.errors import LlasaError

SHORTEST, LONGEST = 1.0, 30.0  # seconds of speech
READ = 300.0  # seconds of a recording; what is cut from it may be much longer than the speech
LEVEL = -23.0  # dBFS of speech: of references, as in the training corpora, and so of what is said after them
ADVICE = "3 to 10 seconds of one person speaking work best"

SILENCE = -90.0  # dBFS; 16-bit rounding alone lies at -101
RUMBLE = (30.0, 60.0)  # Hz; nothing passes below, all above: an offset, steps of it, and the lowest hum are no speech
BAND = (150.0, 3600.0)  # Hz, in which levels are measured
PITCH = (70.0, 400.0)  # Hz
VOICED = 0.5  # correlation with the sound one period earlier; white noise of 40 ms stays below 0.4
FRAME, STEP = 0.04, 0.01  # seconds
STEADY = 6.0  # dB between quiet and loud frames; noise and tones vary by less
LOUD = 25  # frames; so many may be louder than the level of speech that is reckoned with
RANGE = 45.0  # dB below the loudest frames in which speech is looked for
NEAR = 0.3  # seconds that consonants without a pitch may last
MARGIN = 0.1  # seconds kept before and after speech
MAINS, DRIFT = (50.0, 60.0), 0.3  # Hz; a hum and how far it may be off
HARMONICS, TOLD = 20, 8  # of a hum: those that are taken away, and those that tell that there is one
CLEAR = 8.5  # dB by which these stand out on average; without a hum, 39 clips of four corpora had up to 7.4
HUMMING = 2.0  # seconds over which a hum keeps its level
PAUSE = 0.6  # seconds; a longer pause is cut to this
FADE = 0.01  # seconds of crossfade where something is cut out


def condition(samples: np.ndarray, rate: int) -> np.ndarray:
    """The speech of a recording, as a model should hear its reference.

    What lies below the voice is filtered out, such as an offset, and the hum of the mains. Silence and noise before and
    after the speech are cut, long pauses are shortened, and the level is set to LEVEL, however quiet the recording is.

    Args:
        samples: (N,) mono, -1 to 1.
        rate: Hz.

    Returns:
        (M,) float32, SHORTEST to LONGEST seconds.

    Raises:
        LlasaError: the recording is silent, is noise, or has too little or too much speech.
    """
    seconds = len(samples) / rate
    if not np.isfinite(samples).all():
        raise LlasaError("some samples of the reference are NaN: save the recording again")
    if seconds < SHORTEST:
        raise LlasaError(f"the reference lasts {seconds:.2f} s, too short to hear a voice in: {ADVICE}")
    if seconds > READ:
        raise LlasaError(f"the reference is too long: {seconds:.0f} s, and {READ:.0f} are read: cut it; {ADVICE}")
    samples = without_hum(without_rumble(samples, rate), rate)
    loudest = float(np.abs(samples).max())
    if 20 * np.log10(max(loudest, 1e-12)) < SILENCE:
        raise LlasaError(f"the reference is silent: {ADVICE}")
    speech = find_speech(samples, rate)
    if not len(speech):
        raise LlasaError(f"there is no speech in the reference, only noise or tones: {ADVICE}")
    samples = _cut(samples, speech, rate)
    seconds = len(samples) / rate
    if seconds < SHORTEST:
        raise LlasaError(f"the reference has {seconds:.2f} s of speech, too little to hear a voice in: {ADVICE}")
    if seconds > LONGEST:
        raise LlasaError(f"the reference has {seconds:.0f} s of speech, more than {LONGEST:.0f}: cut it; {ADVICE}")
    # The level is measured from -60 dBFS upwards, so a quiet recording is first made loud.
    return audio.set_loudness((samples * (0.5 / loudest)).astype(np.float32), rate, LEVEL)


def find_speech(samples: np.ndarray, rate: int) -> list[tuple[int, int]]:
    """The stretches of speech in a recording without an offset, in order: (start, stop) in samples; none in noise.

    Pauses of up to PAUSE seconds lie within a stretch, and MARGIN seconds before and after it.
    """
    size, step = round(FRAME * rate), round(STEP * rate)
    if len(samples) < size:
        return []
    power, periodic = _measure(samples, rate, size, step)
    smooth = np.convolve(power, np.full(5, 0.2), mode="same")
    levels = 10 * np.log10(smooth + 1e-20)
    high = float(np.sort(levels)[-1 - min(len(levels) // 2, LOUD)])
    low = max(float(np.percentile(levels, 10)), high - RANGE)
    spread = high - low
    sounding = levels > low + max(STEADY, 0.35 * spread) if spread >= STEADY else np.ones(len(levels), bool)
    voiced = sounding & (periodic > VOICED)
    if not voiced.any():
        if spread < STEADY:
            return []
        voiced = sounding  # a whisper
    elif spread < STEADY and float(levels.std()) < STEADY / 4:
        return []  # a tone
    near = round(NEAR / STEP)
    close = np.convolve(voiced, np.ones(2 * near + 1), mode="same") > 0
    frames = np.flatnonzero(sounding & close)
    breaks = np.flatnonzero(np.diff(frames) * STEP > PAUSE)
    starts, stops = frames[np.r_[0, breaks + 1]], frames[np.r_[breaks, len(frames) - 1]]
    margin = round(MARGIN * rate)
    return [
        (max(0, int(start) * step - margin), min(len(samples), int(stop) * step + size + margin))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _measure(samples: np.ndarray, rate: int, size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame the power in BAND, and its greatest correlation with itself one period of PITCH earlier."""
    count = 1 + (len(samples) - size) // step
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::step][:count]
    length = 1 << (2 * size - 1).bit_length()
    frequencies = np.fft.rfftfreq(length, 1 / rate)
    band = (frequencies >= BAND[0]) & (frequencies <= BAND[1])
    window = np.hanning(size)
    shape = np.fft.irfft(np.abs(np.fft.rfft(window, length)) ** 2)
    lags = slice(round(rate / PITCH[1]), round(rate / PITCH[0]) + 1)
    power, periodic = np.empty(count), np.empty(count)
    for first in range(0, count, 1000):  # 10 s at a time
        part = slice(first, first + 1000)
        spectrum = np.abs(np.fft.rfft(frames[part] * window, length)) ** 2
        correlation = np.fft.irfft(spectrum * (frequencies < BAND[1]))
        power[part] = (spectrum * band).sum(axis=1) / length
        whole = np.maximum(correlation[:, :1] / shape[0], 1e-20)
        periodic[part] = (correlation[:, lags] / shape[lags] / whole).max(axis=1)
    return power, periodic


def without_rumble(samples: np.ndarray, rate: int) -> np.ndarray:
    """The samples (N,) without what lies below RUMBLE, as float64."""
    samples = np.asarray(samples, dtype=np.float64)
    padded = np.pad(samples, rate // 4, mode="reflect" if len(samples) > rate // 4 else "edge")
    frequencies = np.fft.rfftfreq(len(padded), 1 / rate)
    share = np.clip((frequencies - RUMBLE[0]) / (RUMBLE[1] - RUMBLE[0]), 0, 1)
    filtered = np.fft.irfft(np.fft.rfft(padded) * np.sin(share * np.pi / 2) ** 2, len(padded))
    return filtered[rate // 4 : rate // 4 + len(samples)]


def without_hum(samples: np.ndarray, rate: int) -> np.ndarray:
    """The samples (N,) float64 without the hum of the mains, if there is one: a steady tone and its harmonics.

    It is fitted where the recording is quiet, by least squares over stretches of HUMMING seconds, and subtracted.
    """
    size, half = round(HUMMING * rate), round(HUMMING * rate / 2)
    width = round(0.03 * rate)
    power = np.convolve(samples**2, np.full(width, 1 / width), mode="same")
    weight = 1 / np.sqrt(power + np.percentile(power, 10) + 1e-20)
    frequency = _hum(samples * weight, rate)
    if not frequency:
        return samples
    # The same tones fit every stretch, in other phases. Stretches overlap by half, and their windows add up to 1.
    phase = 2 * np.pi * frequency / rate * np.outer(np.arange(size), np.arange(1, HARMONICS + 1))
    tones = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    padding = (half, half + -len(samples) % half)
    padded, weight = np.pad(samples, padding), np.pad(weight, padding)
    found = np.zeros(len(padded))
    for start in range(0, len(padded) - size + 1, half):
        part = slice(start, start + size)
        weighted = tones * weight[part, None]
        amounts = np.linalg.lstsq(weighted.T @ weighted, weighted.T @ (padded[part] * weight[part]), rcond=1e-9)[0]
        found[part] += window * (tones @ amounts)
    return samples - found[half : half + len(samples)]


def _hum(samples: np.ndarray, rate: int) -> float:
    """The fundamental of a hum in Hz, 0 if there is none, in samples of the same level throughout."""
    size = 1 << (max(len(samples), 30 * rate) - 1).bit_length()
    levels = 10 * np.log10(np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size)) ** 2 + 1e-20)
    bins, harmonics = size / rate, np.arange(1, TOLD + 1)  # a hertz in bins
    best, clearest = 0.0, CLEAR
    for mains in MAINS:
        around = [
            np.r_[
                levels[round((f - 12) * bins) : round((f - 3) * bins)],
                levels[round((f + 3) * bins) : round((f + 12) * bins)],
            ]
            for f in mains * harmonics
        ]
        frequencies = np.arange(mains - DRIFT, mains + DRIFT, 0.0025)
        at = np.interp(np.outer(frequencies, harmonics) * bins, np.arange(len(levels)), levels)
        above = np.clip(at - [np.median(level) for level in around], 0, 40)
        clear = np.where(above[:, 0] > 10, above.mean(axis=1), 0)
        if clear.max() > clearest:
            best, clearest = float(frequencies[clear.argmax()]), float(clear.max())
    return best


def _cut(samples: np.ndarray, speech: list[tuple[int, int]], rate: int) -> np.ndarray:
    """The stretches one after the other. Between two of them lies as much of the pause as PAUSE allows."""
    half, fade = round((PAUSE / 2 - MARGIN) * rate), round(FADE * rate)
    ramp = np.linspace(0, 1, fade)
    result = samples[:0]
    for index, (start, stop) in enumerate(speech):
        begin = start - half if index else start
        end = stop + half if index < len(speech) - 1 else stop
        piece = samples[begin:end]
        if index:
            joint = result[-fade:] * (1 - ramp) + piece[:fade] * ramp
            result = np.concatenate([result[:-fade], joint, piece[fade:]])
        else:
            result = piece
    return result
