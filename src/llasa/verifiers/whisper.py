"""Scores whether speech says its text, with Whisper (arXiv 2212.04356): compares its transcript with the text.

The default model is `openai/whisper-base`: multilingual, with 74 M parameters, small enough for a CPU. A larger one
makes fewer errors, so use it if you have a GPU: `whisper:openai/whisper-large-v3-turbo`. `whisper:faster:small` runs
through faster-whisper and takes one of its sizes, a hub id or a folder in CTranslate2's layout.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from llasa.errors import LlasaError, first_line, need_extra
from llasa.files import is_folder
from llasa.models.defaults import check_device
from llasa.text.wording import word_errors
from llasa.verifiers.downloads import find_weights, load_pretrained
from llasa.verifiers.protocol import RATE, Batch

DEFAULT = "openai/whisper-base"
FASTER = "faster:"
WINDOW = 30 * RATE  # samples that Whisper processes at once
SHORTEST = 0.1  # seconds; no word is shorter
BATCH = 16

# (sounds, each one's text, their common language or None to detect it) -> transcripts
Transcriber = Callable[[Sequence[np.ndarray], Sequence[str], str | None], list[str]]

_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f]")
_KANA = re.compile(r"[\u3040-\u30ff\uff66-\uff9f]")
# Words that are frequent in English and in no other language that is written in ASCII letters alone.
_ENGLISH = re.compile(r"\b(the|and|that|this|with|you|she|they|what|have|from|would|are|my|it's)\b", re.IGNORECASE)


def load(model: str | None = None, device: str = "cpu") -> "Whisper":
    """Loads the verifier from a folder or hub id, or through faster-whisper if the name starts with `faster:`.

    Raises:
        LlasaError: a package is missing, there is no such model, the hub cannot be reached, or it is another kind.
    """
    need_extra("verify", "jiwer")
    device = check_device(device)
    name = model or DEFAULT
    run = _faster(name.removeprefix(FASTER), device) if name.startswith(FASTER) else _transformers(name, device)
    return Whisper("whisper" if model is None else f"whisper:{model}", run)


class Whisper:
    """1 minus the word error rate, or the character error rate of Chinese and Japanese; not below 0."""

    process = False
    needs_text = True
    needs_reference = False

    def __init__(self, name: str, run: Transcriber) -> None:
        self.name, self._run = name, run

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        transcripts = self.transcribe(batch.audios, batch.texts)
        return np.array([accuracy(text, found) for text, found in zip(batch.texts, transcripts, strict=True)], float)

    def transcribe(self, audios: Sequence[np.ndarray], texts: Sequence[str], language: str | None = None) -> list[str]:
        """The transcript of each sound; empty for silence.

        The texts limit the work: a transcript ends at about twice the length of its text, since it scores 0 by then.
        They also show the language, if `language` does not name it (as Whisper does: "en").
        """
        cut = [(row, piece) for row, audio in enumerate(audios) if audio.any() for piece in pieces(audio)]
        found: dict[int, str] = {}
        for language, batch in _batches([language or language_of(texts[row]) for row, _ in cut]):
            wanted = [texts[cut[i][0]] for i in batch]
            found |= dict(zip(batch, self._run([cut[i][1] for i in batch], wanted, language), strict=True))
        transcripts: list[list[str]] = [[] for _ in audios]
        for i, (row, _) in enumerate(cut):
            transcripts[row].append(found[i].strip())
        return [" ".join(parts) for parts in transcripts]


def accuracy(text: str, heard: str) -> float:
    """1 minus the error rate of a transcript, at least 0. For a text without words, 1 if the transcript has none."""
    if is_ideographic(text):
        import jiwer

        return max(0.0, 1 - float(jiwer.cer(letters(text), letters(heard))))
    errors, count = word_errors(text, heard)
    return max(0.0, 1 - errors / count) if count else float(not errors)


def is_ideographic(text: str) -> bool:
    """Whether a text is mostly Chinese or Japanese, where no spaces separate words."""
    return 2 * len(_IDEOGRAPH.findall(text)) > len(letters(text))


def letters(text: str) -> str:
    """Only the letters and digits of a text, in one width and in lower case."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", text).lower() if letter.isalnum())


def language_of(text: str) -> str | None:
    """Whisper's code of a text's language, if its letters or words show it; None if Whisper has to detect it."""
    if is_ideographic(text):
        return "ja" if _KANA.search(text) else "zh"
    return "en" if text.isascii() and _ENGLISH.search(text) else None


def pieces(audio: np.ndarray) -> Iterator[np.ndarray]:
    """Cuts a sound into parts of at most 30 s, each at the quietest 0.2 s of its last five seconds."""
    frame, span = RATE // 50, 10
    while len(audio) > WINDOW:
        power = np.square(audio[WINDOW - 5 * RATE : WINDOW].reshape(-1, frame)).sum(1)
        quietest = int(np.convolve(power, np.ones(span), "valid").argmin()) + span // 2
        at = WINDOW - 5 * RATE + quietest * frame
        yield audio[:at]
        audio = audio[at:]
    if len(audio) >= SHORTEST * RATE:
        yield audio


def _batches(languages: Sequence[str | None]) -> Iterator[tuple[str | None, list[int]]]:
    for language in dict.fromkeys(languages):
        rows = [row for row, own in enumerate(languages) if own == language]
        for start in range(0, len(rows), BATCH):
            yield language, rows[start : start + BATCH]


def _limit(tokens: int) -> int:
    """The most tokens of a transcript for a text of `tokens`: beyond twice as many, errors outnumber its words."""
    return 2 * tokens + 32


def _transformers(name: str, device: str) -> Transcriber:
    import torch
    from transformers import WhisperProcessor

    folder, network = load_pretrained(name, "whisper", "WhisperForConditionalGeneration")
    try:
        processor = WhisperProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception on a damaged file
        raise LlasaError(
            f"the tokenizer or feature extractor of {name} cannot be read ({first_line(error)}): fetch or copy it again"
        ) from error
    network.to(device, torch.float16 if device.startswith("cuda") else torch.float32)
    longest = network.config.max_target_positions // 2  # as in the original; the other half is for a prompt
    multilingual = getattr(network.generation_config, "is_multilingual", False)

    @torch.inference_mode()
    def transcribe(audios: Sequence[np.ndarray], texts: Sequence[str], language: str | None) -> list[str]:
        features = processor.feature_extractor(list(audios), sampling_rate=RATE, return_tensors="pt").input_features
        limits = [min(longest, _limit(len(row))) for row in processor.tokenizer(list(texts)).input_ids]
        options = {"language": language, "task": "transcribe"} if multilingual else {}
        written = network.generate(
            features.to(device, network.dtype), max_new_tokens=max(limits), num_beams=1, do_sample=False, **options
        )
        # Tokens of text have ids below the end token, special tokens above it. Each row is cut at its own limit, so
        # that its score does not depend on the rest of the batch.
        rows = [[token for token in row if token < processor.tokenizer.eos_token_id] for row in written.tolist()]
        return processor.batch_decode([row[:limit] for row, limit in zip(rows, limits, strict=True)])

    return transcribe


def _faster(name: str, device: str) -> Transcriber:
    need_extra("faster-whisper", "faster_whisper")
    from faster_whisper import WhisperModel

    size = not is_folder(name) and "/" not in name
    folder = find_weights(f"Systran/faster-whisper-{name}" if size else name, ["*.json", "*.txt", "model.bin"])
    kind, _, index = device.partition(":")
    try:
        model = WhisperModel(str(folder), device=kind, device_index=int(index or 0), local_files_only=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise LlasaError(f"faster-whisper cannot load {name} ({first_line(error)}): fetch or copy it again") from error

    def transcribe(audios: Sequence[np.ndarray], texts: Sequence[str], language: str | None) -> list[str]:
        transcripts = []
        for audio, text in zip(audios, texts, strict=True):
            limit = min(model.max_length // 2, _limit(len(model.hf_tokenizer.encode(text).ids)))
            segments, _ = model.transcribe(
                audio, language=language, beam_size=1, temperature=0.0, condition_on_previous_text=False,
                without_timestamps=True, max_new_tokens=limit,
            )  # fmt: skip
            transcripts.append(" ".join(segment.text.strip() for segment in segments))
        return transcripts

    return transcribe
