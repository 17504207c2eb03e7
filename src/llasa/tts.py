"""Text to speech: `Llasa`, the one object a user holds.

Knows how plan, voice, engine and codec go together, and leaves what each does to `planning`, `voice`, `speaking`,
`engine` and `codec`.

All chunks of a text are spoken after the same voice prompt. Nothing carries over from one to the next, so several are
decoded at once, one that fails is simply spoken again, and the audio depends on the seed alone.
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from llasa import audio
from llasa.checkpoint import open_checkpoint
from llasa.codec import Codec
from llasa.defaults import SETTINGS, dtype_of, sampling_of
from llasa.engine import Engine, Sampling
from llasa.errors import LlasaError, LlasaWarning
from llasa.lexicon import load_lexicon
from llasa.loading import (
    check_device,
    context_length,
    find_base,
    find_codec,
    find_model,
    fingerprint,
    load_tokenizer,
    read_config,
    sampling_folder,
    tokenizer_folder,
)  # fmt: skip
from llasa.planning import Planner
from llasa.search.strategy import choose
from llasa.speaking import ROWS, draw_seed, stream_take, takes
from llasa.speech import LEVEL, Interrupted, Speech, Utterance, join, silence
from llasa.text import Chunk
from llasa.verifiers import load_verifier
from llasa.vocabulary import read_vocabulary
from llasa.voice import LONGEST, Voice, check_reference, list_voices, suggest

if TYPE_CHECKING:
    from llasa.search.strategy import Strategy
    from llasa.search.task import Tools
    from llasa.verifiers.combine import Verify

VoiceLike = Voice | str | Path | None
NO_SOUND = "the model ended without a sound: try another seed or voice"


class Progress(Protocol):
    """Called with the seconds of audio so far, and about how many there will be."""

    def __call__(self, spoken: float, expected: float, /) -> None: ...


class Llasa:
    """A language model, its codec and its voices, ready to speak. Made by `Llasa.load`.

    Attributes:
        folder: the model's folder; that of its base, if the model is a LoRA.
        engine, codec, vocabulary: its parts.
        codec_id: fingerprint of the codec.
        defaults: sampling settings, from the folder's generation_config.json.
        rate: sample rate of all audio, Hz.
    """

    def __init__(self, folder: Path, device: str, dtype: torch.dtype, spread: bool = False) -> None:
        self.folder, self._given = find_base(folder), folder
        config = read_config(self.folder)
        codec_folder = find_codec(folder)
        tokens = self.vocabulary = read_vocabulary(load_tokenizer(tokenizer_folder(folder)))
        self.codec = Codec.load(codec_folder, device=device)
        self.codec_id = fingerprint(codec_folder)
        if self.codec.codebook_size != self.vocabulary.size:
            raise LlasaError(
                f"the model in {folder} has {self.vocabulary.size} speech tokens and its codec {codec_folder} "
                f"{self.codec.codebook_size} codes: they do not belong together"
            )
        model = open_checkpoint(folder, device, dtype, spread)
        self.engine = Engine(model, tokens.first, tokens.size, tokens.end, context_length(config))
        self.rate = self.codec.rate
        self.defaults, self._default_voice = sampling_of(sampling_folder(folder), config)
        self._codes_per_second = self.codec.rate / self.codec.hop
        self._planner = Planner(tokens, load_lexicon(self.folder), self._codes_per_second, self.engine.context)
        self._rows = ROWS
        recogniser = self.folder.parent / "recogniser"  # of the same recipe
        self._recogniser = recogniser if recogniser.is_dir() else None
        self._load_verifier = cache(partial(load_verifier, device=str(self.engine.device), recogniser=self._recogniser))

    @classmethod
    def load(
        cls,
        name: str | Path = "tiny",
        device: str | None = None,
        dtype: str | None = None,
        device_map: str | None = None,
    ) -> "Llasa":
        """Loads a model.

        Args:
            name: `tiny`, the model inside this package; a folder, of a model or of a LoRA, which is merged into its
                base; or a hub id such as HKUSTAudio/Llasa-1B.
            device: as torch names it; by default a GPU if there is one.
            dtype: of the language model's weights: "float32", "bfloat16" or "float16"; by default the fastest that
                the device computes well.
            device_map: "auto" spreads the language model over all GPUs, and the CPU if they have no room.

        Raises:
            LlasaError: the folder is missing, damaged, or not a Llasa model's; or there is no such device or dtype.
        """
        if device_map not in (None, "auto"):
            raise LlasaError(f"there is no device map {device_map}: the only one is auto")
        device = check_device(device)
        return cls(find_model(name), device, dtype_of(dtype, device), device_map == "auto")

    def say(
        self,
        text: str,
        voice: VoiceLike = None,
        seed: int | None = None,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        max_seconds: float | None = None,
        speaker: str | None = None,
        best_of: int | None = None,
        search: str | None = None,
        verify: "Verify | None" = None,
        budget: float | None = None,
        on_progress: Progress | None = None,
    ) -> Speech:
        """Speaks a text of any length.

        Args:
            text: plain text; a long one is split at sentences, and a chunk that ends too soon or runs away is
                spoken again with another seed, three times at most.
            voice: a `Voice`, the name of one (`voices()`), a voice file, or None for the model's default. A model
                without any goes on in the voice that its first chunk happens to have.
            seed: the same seed gives the same audio; drawn at random by default, and told in the result.
            temperature, top_p, top_k, min_p, repetition_penalty: see `engine.Sampling`; by default the model's own.
            max_seconds: the longest that one chunk may last; by default worked out from its length.
            speaker: a name that the model was tuned to speak as; the model's default voice is then left out.
            best_of: says each chunk so many times and keeps the best.
            search: another way to spend compute, as `search.strategy.parse` reads it: "beam:4x4", "mixed:4x4@2s+16".
            verify: who judges, as `verifiers.combine.parse` reads it: "content=1,speaker=0.5", a `verifiers.Verifier`,
                or a function of texts, audios (T_i,) and references (R_i,) or None, float32 at 16 kHz, that gives
                numbers. By default the words: "content", the model's own recogniser, else "whisper".
            budget: seconds; ends the search.
            on_progress: called often with the seconds spoken so far and about how many there will be.

        Each of `best_of`, `search`, `verify` and `budget` starts a search. Without a number it is the best of four. The
        result's `search` tells what the search did.

        Raises:
            LlasaError: nothing to say, no such voice, a setting out of range, or a search or verifier that cannot be.
            Interrupted: on Ctrl-C; a KeyboardInterrupt that carries what was finished.
        """
        began = time.perf_counter()
        clock = {"generate": 0.0, "decode": 0.0}
        sampling = self._sampling(temperature, top_p, top_k, min_p, repetition_penalty)
        greedy = sampling.temperature == 0 or sampling.top_k == 1
        strategy = choose(best_of, search, verify is not None, budget, greedy)
        seed = draw_seed(seed)
        planner = replace(self._planner, speaker=speaker)
        voice, chunks = self._prepare(planner, text, voice, max_seconds)
        done: list[Utterance] = []
        if strategy is None:
            account = None
            utterances = self._speak(planner, chunks, voice, seed, sampling, max_seconds, on_progress, clock)
        else:
            from llasa.search.speaking import speak

            tools = self._tools(strategy, verify)
            account = tools.account
            utterances = speak(
                tools, planner, chunks, voice, seed, sampling, strategy, max_seconds, budget, on_progress
            )

        def speech() -> Speech:
            if account:
                spent = account.seconds
                clock.update(generate=spent["lm"], decode=spent["codec"], verify=spent["verifier"])
                for note in account.notes:
                    warnings.warn(note, LlasaWarning, stacklevel=3)
            timings = {**clock, "total": time.perf_counter() - began}
            return Speech(join(done, self.rate), self.rate, text, done, seed, timings, account)

        try:
            for utterance in utterances:
                done.append(utterance)
        except KeyboardInterrupt as stop:
            raise Interrupted(speech()) from stop
        if not any(len(u.codes) for u in done):
            raise LlasaError(NO_SOUND)
        return speech()

    def stream(
        self,
        text: str,
        voice: VoiceLike = None,
        seed: int | None = None,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        max_seconds: float | None = None,
        speaker: str | None = None,
        on_progress: Progress | None = None,
    ) -> Iterator[np.ndarray]:
        """Speaks a text and yields its audio as it is made: float32 arrays, the first after about 0.2 s of audio.

        Arguments and errors are `say`'s, and so are the codes, except that what has been yielded cannot be spoken
        again: a chunk that runs away is cut off. Chunks keep the level that the model gives them.
        """
        sampling = self._sampling(temperature, top_p, top_k, min_p, repetition_penalty)
        seed = draw_seed(seed)
        planner = replace(self._planner, speaker=speaker)
        voice, chunks = self._prepare(planner, text, voice, max_seconds)
        return self._stream(planner, chunks, voice, seed, sampling, max_seconds, on_progress)

    def clone(
        self, source: str | Path | np.ndarray, transcript: str, name: str = "clone", rate: int | None = None
    ) -> Voice:
        """A voice from a recording of somebody.

        Args:
            source: an audio file, or samples (N,).
            transcript: the words spoken in it.
            name: what to call the voice.
            rate: of `source` where that is an array, in Hz; by default this model's.

        Raises:
            LlasaError: not audio, silent, shorter than 1 s, longer than 30 s, or without a transcript.
        """
        if isinstance(source, np.ndarray):
            if source.ndim != 1:
                raise LlasaError(f"a reference is one row of samples, not an array of shape {source.shape}")
            samples = audio.resample(source, rate or self.rate, self.rate)
        else:
            samples = audio.load(source, self.rate, max_seconds=LONGEST)
        check_reference(samples, self.rate, transcript)
        samples = audio.set_loudness(audio.trim_silence(samples, self.rate), self.rate, LEVEL)
        text = " ".join(transcript.split())
        return Voice(name, text, self.codec.encode(samples), self.codec_id, samples, self.rate)

    def voices(self) -> dict[str, Path]:
        """Name to file of every voice: the user's own and the model's presets."""
        return list_voices(self._given)

    def voice(self, voice: VoiceLike = None) -> Voice | None:
        """A voice by name or file, with this model's codes; None gives the model's default, if it has one.

        Raises:
            LlasaError: there is none of that name, its file is damaged, or its codes are another codec's and it holds
                no audio to encode again.
        """
        if voice is None:
            presets = sorted((self.folder / "voices").glob("*.safetensors"))
            if self._default_voice is None and not presets:
                return None
            voice = self._default_voice or presets[0]
        if not isinstance(voice, Voice):
            known = self.voices()
            if str(voice) not in known and Path(voice).suffix != ".safetensors":
                raise LlasaError(suggest(str(voice), known))
            voice = Voice.load(known.get(str(voice), Path(voice)))
        if voice.codec == self.codec_id:
            return voice
        if voice.samples is None:
            raise LlasaError(f"the voice {voice.name} was made for another codec and holds no audio: add it again")
        samples = audio.resample(voice.samples, voice.rate, self.rate)
        return replace(voice, codes=self.codec.encode(samples), codec=self.codec_id)

    def _tools(self, strategy: "Strategy", verify: "Verify | None") -> "Tools":
        """What a search needs."""
        from llasa.search.account import Account
        from llasa.search.task import Tools
        from llasa.verifiers.combine import make_judge

        if verify is None:
            verify = "content" if self._recogniser else "whisper"
        judge = make_judge(verify, self._load_verifier, beam=strategy.keep > 0)
        account = Account(str(strategy), judge.written)
        return Tools(self.engine, self.vocabulary, self.codec, judge, self._rows, account)

    def _sampling(self, *values: float | None) -> Sampling:
        given: dict[str, Any] = {name: v for name, v in zip(SETTINGS, values, strict=True) if v is not None}
        return replace(self.defaults, **given)

    def _prepare(
        self, planner: Planner, text: str, voice: VoiceLike, max_seconds: float | None
    ) -> tuple[Voice | None, list[Chunk]]:
        """Everything that can fail before any work is done."""
        if max_seconds is not None and not max_seconds > 0:
            raise LlasaError(f"max_seconds is {max_seconds}: it must be above 0")
        chosen = None if voice is None and planner.speaker else self.voice(voice)
        chunks, unread = planner.chunks(text, chosen)
        if unread:
            sample = unread[0][:40]
            warnings.warn(
                f"left out {len(unread)} of {len(chunks) + len(unread)} chunks that this model cannot read: {sample!r}",
                LlasaWarning,
                stacklevel=3,
            )
        return chosen, chunks

    def _speak(
        self,
        planner: Planner,
        chunks: list[Chunk],
        voice: Voice | None,
        seed: int,
        sampling: Sampling,
        max_seconds: float | None,
        on_progress: Progress | None,
        clock: dict[str, float],
    ) -> Iterator[Utterance]:
        """The chunks in order, each as soon as it and all before it are done; `clock` gathers where time went."""
        first = 0
        spoken = 0.0  # seconds
        lengths = self._expected_seconds(chunks, voice)
        while first < len(chunks):
            # Without a voice or a speaker the first chunk is spoken alone: it is the voice of the others.
            alone = voice is None and planner.speaker is None
            last = first + 1 if alone else len(chunks)
            pieces = planner.pieces(chunks[first:last], voice, max_seconds)

            def report(
                count: float, expected: float, before: float = spoken, after: float = sum(lengths[last:])
            ) -> None:
                if on_progress:
                    rate = self._codes_per_second
                    on_progress(before + count / rate, before + expected / rate + after)

            results = takes(self.engine, self.vocabulary, pieces, seed, sampling, self._rows, first, report)
            for piece in pieces:
                began = time.perf_counter()
                take = next(results)
                generated = time.perf_counter()
                samples = self.codec.decode(take.codes) if len(take.codes) else np.empty(0, np.float32)
                clock["generate"] += generated - began
                clock["decode"] += time.perf_counter() - generated
                spoken += len(take.codes) / self._codes_per_second
                yield Utterance(piece.text, take.codes, samples, piece.pause, take.finished)
            if alone and pieces[0].can_be_voice(len(take.codes), take.finished):
                voice = Voice("first chunk", pieces[0].text, take.codes, self.codec_id)
            first = last

    def _expected_seconds(self, chunks: list[Chunk], voice: Voice | None) -> list[float]:
        return [self._planner.expected(chunk.text, voice) / self._codes_per_second for chunk in chunks]

    def _stream(
        self,
        planner: Planner,
        chunks: list[Chunk],
        voice: Voice | None,
        seed: int,
        sampling: Sampling,
        max_seconds: float | None,
        on_progress: Progress | None,
    ) -> Iterator[np.ndarray]:
        decoder = self.codec.decode_stream()
        rate = self._codes_per_second
        lengths = self._expected_seconds(chunks, voice)
        count = 0
        for index, chunk in enumerate(chunks):
            piece = planner.pieces([chunk], voice, max_seconds)[0]
            to_come = sum(lengths[index + 1 :])
            codes = np.empty(0, np.uint16)
            for new in stream_take(self.engine, self.vocabulary, piece, seed, sampling, index):
                codes = np.concatenate([codes, new])
                if on_progress:
                    so_far = count + len(codes)
                    rest = max(0.0, piece.expected - len(codes)) / rate + to_come
                    on_progress(so_far / rate, so_far / rate + rest)
                if len(samples := decoder.push(new)):
                    yield samples
            count += len(codes)
            if on_progress:
                on_progress(count / rate, count / rate + to_come)
            if len(samples := np.concatenate([decoder.finish(), silence(piece.pause, self.rate)])):
                yield samples
            alone = voice is None and planner.speaker is None
            if alone and piece.can_be_voice(len(codes), 0 < len(codes) < piece.limit):
                voice = Voice("first chunk", piece.text, codes, self.codec_id)
        if not count:
            raise LlasaError(NO_SOUND)
