"""Recognises speech with the language model that speaks: codes in, text out (Llasa, arXiv 2502.04128).

The prompt is upstream's: `Convert the speech to text:<|SPEECH_UNDERSTANDING_START|>`, the codes,
`<|SPEECH_UNDERSTANDING_END|>`, and the model continues `<|TEXT_GENERATION_START|>` with text, up to
`<|TEXT_GENERATION_END|>`. Whatever the backend, that is the four verbs with text tokens as the legal ones, always the
likeliest of them.

A model writes something whatever it hears. So silence and noise never reach it (`windows.py`), what it writes cannot be
longer than people talk, and a text that repeats itself, or that the model itself finds unlikely, is dropped: that is
what it mostly makes of music.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llasa import audio
from llasa.codec import Codec
from llasa.engine import Backend, Sampling
from llasa.errors import LlasaError
from llasa.listen.transcript import Segment, Transcript, repetition
from llasa.listen.windows import windows
from llasa.models.folder import read_config
from llasa.reference import LEVEL
from llasa.speak.takes import STEP, row_count
from llasa.text.wording import plain
from llasa.vocabulary import Vocabulary

LONGEST = 12.0  # seconds of a window, about as long as the utterances that models learn from
FASTEST = 25  # tokens a second; nobody talks at so many letters a second, and words have fewer tokens than letters
UNLIKELY = -1.0  # nats a token; what the model finds less likely was not said
REPEATED = 2.4  # of `repetition`; more is a loop. Both limits are Whisper's


@dataclass(frozen=True, eq=False)
class Listener:
    """A model that recognises speech. `make_listener` makes it.

    Attributes:
        backend: the model's, with text tokens as the legal ones.
        codec, vocabulary: the model's.
        spells: whether it writes plain letters only (`text.wording.plain`).
    """

    backend: Backend
    codec: Codec
    vocabulary: Vocabulary
    spells: bool

    def transcribe(
        self,
        source: str | Path | np.ndarray,
        rate: int | None = None,
        on_progress: Callable[[float, float], None] | None = None,
    ) -> Transcript:
        """Writes down what is said in a recording of any length: see `Llasa.transcribe`.

        Args:
            on_progress: called with the seconds heard so far and those in all.

        Raises:
            LlasaError: the source is not audio, or the model's output is NaN.
        """
        if not isinstance(source, np.ndarray):
            samples = audio.load(source, self.codec.rate)
        elif source.ndim == 1:
            samples = audio.resample(source, rate or self.codec.rate, self.codec.rate)
        else:
            raise LlasaError(f"a recording is one row of samples, not an array of shape {source.shape}")
        if not np.isfinite(samples).all():
            raise LlasaError("some samples of the recording are NaN or infinite: save it again")
        found, total = list[Segment](), len(samples) / self.codec.rate
        for group in windows(samples, self.codec.rate, self.longest):
            found += self._heard(samples, group)
            if on_progress and group:
                on_progress(group[-1][1] / self.codec.rate, total)
        return Transcript(tuple(found), total)

    def likelihood(self, text: str, samples: np.ndarray) -> float:
        """How likely the model finds a text, given the sound of it: the mean probability of a token (geometric).

        Args:
            samples: (N,) float32, at the codec's rate.

        Raises:
            LlasaError: the text and the sound do not fit the model's context.
        """
        tokens = self._tokens(plain(text) if self.spells else text)
        if not tokens or not samples.any():
            return 0.0
        prompt = self._prompt(samples)
        return float(np.exp(self.backend.likelihoods(prompt, [*tokens, self._end]).mean()))

    @property
    def longest(self) -> float:
        """Seconds of a window: LONGEST, or as many as the context has room for, with what is said in them."""
        room = self.backend.context - len(self.vocabulary.heard([])) - STEP
        return min(LONGEST, room / (self.codec.rate / self.codec.hop + FASTEST))

    @property
    def _end(self) -> int:
        return self.vocabulary.marks("<|TEXT_GENERATION_END|>")[0]

    def _prompt(self, samples: np.ndarray) -> list[int]:
        return self.vocabulary.heard(self.codec.encode(audio.set_loudness(samples, self.codec.rate, LEVEL)))

    def _tokens(self, text: str) -> list[int]:
        return self.vocabulary.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _heard(self, samples: np.ndarray, group: list[tuple[int, int]]) -> Iterator[Segment]:
        """What is said in some windows of a recording, those in which nothing is left out."""
        rate = self.codec.rate
        rows = row_count(self.backend, self.backend.context)
        for some in (group[i : i + rows] for i in range(0, len(group), rows)):
            prompts = [self._prompt(samples[start:stop]) for start, stop in some]
            limits = [round(FASTEST * (stop - start) / rate) + STEP for start, stop in some]
            state = self.backend.start(prompts, sampling=Sampling(temperature=0), max_tokens=max(limits))
            while not all(state.stopped):
                state = self.backend.extend(state, STEP)
            for place, (prompt, (start, stop)) in enumerate(zip(prompts, some, strict=True)):
                tokens = state.tokens[place]
                text = " ".join(self.vocabulary.written(tokens).split())
                ran_away = not state.finished[place] or len(tokens) > limits[place] or repetition(text) > REPEATED
                if not text or ran_away:
                    continue
                likely = float(self.backend.likelihoods(prompt, [*tokens, self._end]).mean())
                if likely >= UNLIKELY:
                    yield Segment(text, round(start / rate, 3), round(stop / rate, 3), float(np.exp(likely)))


def make_listener(folder: Path, vocabulary: Vocabulary, codec: Codec, backend: Backend, spells: bool) -> Listener:
    """Makes a listener of a model.

    Args:
        folder: the model's.
        backend: generates speech tokens.
        spells: whether the model reads phones, and so writes plain letters.

    Raises:
        LlasaError: the model was not trained to recognise speech.
    """
    if not read_config(folder).get("recognition"):
        raise LlasaError(
            f"the model in {folder} was not trained to recognise speech (its config.json has no `recognition: true`): "
            "train it with `data.recognition` (docs/train.md), or pass another by --model"
        )
    start, end = vocabulary.marks("<|TEXT_GENERATION_START|>", "<|TEXT_GENERATION_END|>")
    return Listener(backend.writing(0, start, end), codec, vocabulary, spells)  # all text comes before the marks
