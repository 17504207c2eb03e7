"""What papers report for the suites. These figures are quoted; none of them was measured here."""

from dataclasses import dataclass

LLASA = "Llasa, arXiv 2502.04128"
COSYVOICE = "CosyVoice 3, arXiv 2505.17589"
F5 = "F5-TTS, arXiv 2410.06885"

# Columns of published figures: the judge's name, and the digits that papers give.
COLUMNS = {
    "wer": ("WER, Whisper-large-v3", 2),
    "cer": ("CER, Paraformer", 2),
    "sim": ("SIM, WavLM-large", 3),
    "stoi": ("STOI", 2),
    "pesq-wb": ("PESQ-WB", 2),
    "utmos": ("UTMOS", 2),
    "emotion": ("emotion SIM, emotion2vec", 3),
    "words": ("WER", 2),
}


@dataclass(frozen=True)
class Published:
    """A published row: whose, its figures by the keys of `COLUMNS`, and the source."""

    label: str
    figures: dict[str, float]
    source: str


# Model, then CER and SIM of Chinese, WER and SIM of English, CER and SIM of the hard list.
_SEED = [
    ("Llasa 1B, 250,000 h", (1.89, 0.669), (3.22, 0.572), (12.13, 0.638), LLASA),
    ("Llasa 8B, 250,000 h", (1.59, 0.684), (2.97, 0.574), (11.09, 0.660), LLASA),
    ("Llasa 1B, partial PRM", (1.11, 0.818), (2.03, 0.781), (11.30, 0.773), LLASA),
    ("Llasa 1B, PRM + ORM", (0.45, 0.818), (1.46, 0.782), (5.24, 0.750), LLASA),
    ("Llasa 8B, PRM + ORM", (0.47, 0.825), (1.39, 0.783), (4.38, 0.767), LLASA),
    ("F5-TTS", (1.56, 0.741), (1.83, 0.647), (8.67, 0.713), F5),
    ("CosyVoice3-0.5B", (1.21, 0.780), (2.24, 0.718), (6.71, 0.758), COSYVOICE),
    ("CosyVoice3-0.5B after RL", (0.81, 0.774), (1.68, 0.695), (5.44, 0.750), COSYVOICE),
]


def _seed(place: int, error: str) -> list[Published]:
    rows = []
    for label, *parts, source in _SEED:
        rate, likeness = parts[place]
        rows.append(Published(label, {error: float(rate), "sim": float(likeness)}, str(source)))
    return rows


PUBLISHED: dict[str, dict[str, list[Published]]] = {
    "seed-tts": {"zh": _seed(0, "cer"), "en": _seed(1, "wer"), "hard": _seed(2, "cer")},
    "codec": {
        "test-clean": [
            Published(
                "X-codec2, LibriSpeech test-clean",
                {"pesq-wb": 2.43, "stoi": 0.92, "utmos": 4.13, "sim": 0.82, "words": 2.47},
                LLASA,
            )
        ]
    },
    "esd": {
        "en": [
            Published("Llasa 1B", {"emotion": 0.768}, LLASA),
            Published("Llasa 1B, PRM by emotion", {"emotion": 0.937}, LLASA),
        ]
    },
    "asr": {
        "test-clean": [Published("Llasa 1B", {"words": 2.3}, LLASA), Published("Llasa 3B", {"words": 1.9}, LLASA)],
        "test-other": [Published("Llasa 1B", {"words": 7.2}, LLASA), Published("Llasa 3B", {"words": 5.9}, LLASA)],
    },
}


def published(suite: str, part: str) -> list[Published]:
    """The published rows of a part. Whoever measures another list than the papers' sees them all the same."""
    parts = PUBLISHED.get(suite, {})
    return parts.get(part, next(iter(parts.values())) if part == "all" and parts else [])
