"""Text to speech and back: `Llasa`, the main object for users.

It connects a language model, a codec and voices; `speak`, `search`, `listen`, `engine` and `codec` do the work.
"""

import time
import warnings
from functools import cache, cached_property, partial
from inspect import getdoc
from pathlib import Path
from typing import Unpack

import numpy as np

from llasa.codec import Codec, load_codec
from llasa.engine import Backend, Sampling, check_backend, open_backend
from llasa.errors import LlasaError, LlasaWarning, NoSound, first_line
from llasa.files import is_folder
from llasa.listen.listener import Listener, make_listener
from llasa.listen.transcript import Transcript
from llasa.models.defaults import check_device, dtype_of, sampling_of
from llasa.models.folder import (
    find_base,
    find_codec,
    fingerprint,
    pointing_head,
    read_config,
    sampling_folder,
    tokenizer_folder,
)
from llasa.models.hub import find_model
from llasa.models.tokenizer import read_tokenizer
from llasa.search.strategy import choose
from llasa.speak import plain
from llasa.speak.plan import Planner
from llasa.speak.request import Options, Request, SearchOptions, make_request
from llasa.speak.speech import Interrupted, Speech, Utterance, join, total_work
from llasa.speak.stream import Stream
from llasa.speak.word_times import Timer
from llasa.text.lexicon import load_lexicon
from llasa.verifiers import load_verifier
from llasa.vocabulary import Vocabulary, read_vocabulary
from llasa.voice import Voice, Voices

VoiceLike = Voice | str | Path | None


class Llasa:
    """A language model, its codec and its voices, ready to speak. `Llasa.load` makes it.

    Attributes:
        folder: the model's folder; for a LoRA, the folder of its base.
        vocabulary, codec, backend: its parts.
        codec_id: fingerprint of the codec.
        defaults: sampling settings, from the folder's generation_config.json.
        rate: sample rate of all audio, in Hz.

    Args:
        folder: the model's folder, or a LoRA's.
        vocabulary, codec: the folder's vocabulary and codec.
        backend: generates tokens of that vocabulary.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary, codec: Codec, backend: Backend) -> None:
        self.folder = find_base(folder)
        self.vocabulary, self.codec, self.backend = vocabulary, codec, backend
        self.codec_id = fingerprint(find_codec(folder))
        self.rate = codec.rate
        place = sampling_folder(folder)
        given, default_voice = sampling_of(place, read_config(self.folder))
        try:
            self.defaults = Sampling(**given)
        except (LlasaError, TypeError) as error:
            raise LlasaError(f"{place / 'generation_config.json'}: {first_line(error)}") from error
        self._voices = Voices(folder, codec, self.codec_id, default_voice)
        self._planner = Planner(vocabulary, load_lexicon(self.folder), codec.rate / codec.hop, backend.context)
        recogniser = self.folder.parent / "recogniser"  # the recogniser that was trained with this model
        self._recogniser = recogniser if is_folder(recogniser) else None
        self._load_verifier = cache(
            partial(
                load_verifier,
                device=str(backend.device),
                recogniser=self._recogniser,
                likelihood=lambda: self.listener.likelihood,
            )
        )
        self._head = pointing_head(self.folder) if backend.attends else None
        self._listen = partial(self._load_verifier, "content") if self._recogniser else None

    @classmethod
    def load(
        cls,
        name: str | Path = "tiny",
        device: str | None = None,
        dtype: str | None = None,
        device_map: str | None = None,
        backend: str = "torch",
    ) -> "Llasa":
        """Loads a model.

        Args:
            name: `tiny`, the model inside this package; a folder, of a model or of a LoRA, which is merged into its
                base; or a hub id such as HKUSTAudio/Llasa-1B.
            device: a torch device; by default a GPU if there is one.
            dtype: precision of the language model's weights: "float32", "bfloat16" or "float16"; on a CPU
                also "int8" and "int4". By default the fastest that costs no words on the device.
            device_map: "auto" spreads the language model over all GPUs, and the CPU if they have no room.
            backend: what computes the language model: "torch", "llamacpp" on the CPU, or "vllm".

        Raises:
            LlasaError: the folder is missing, damaged, or not a Llasa model's; or no backend computes like that.
        """
        check_backend(backend, device, device_map)
        device = check_device("cpu" if backend == "llamacpp" else device)
        folder, precision = find_model(name), dtype_of(dtype, device, backend)
        read_config(find_base(folder))  # first, check that it is a language model
        codec_folder = find_codec(folder)
        vocabulary = read_vocabulary(read_tokenizer(tokenizer_folder(folder)))
        codec = load_codec(codec_folder, device=device)
        if codec.codebook_size != vocabulary.size:
            raise LlasaError(
                f"the model in {folder} has {vocabulary.size} speech tokens and its codec {codec_folder} "
                f"{codec.codebook_size} codes: correct `codec` in its config.json"
            )
        return cls(folder, vocabulary, codec, open_backend(folder, backend, device, precision, device_map, vocabulary))

    def say(
        self, text: str, voice: VoiceLike = None, seed: int | None = None, **options: Unpack[SearchOptions]
    ) -> Speech:
        """Speaks a text of any length.

        Args:
            text: plain text. A long text is split at sentences. A chunk that ends too soon, runs away, is nearly
                silent or repeats a word too often or too seldom is spoken again with another seed.
            voice: a `Voice`, the name of one (`voices()`), a voice file, or None for the model's default. Without a
                default voice, the model continues in the voice of its first chunk.
            seed: the same seed gives the same audio; by default it is random. The result holds it.
            options: see below. Of a search, the result's `search` is the account.

        Raises:
            LlasaError: nothing to say, no such voice, a setting out of range, or an impossible search or verifier.
            NoSound: the model ended every chunk without a sound.
            Interrupted: on Ctrl-C; a KeyboardInterrupt that carries what was finished.
        """
        began = time.perf_counter()
        best_of, search = options.pop("best_of", None), options.pop("search", None)
        verify, budget = options.pop("verify", None), options.pop("budget", None)
        request, account = self.request(text, voice, seed, options), None
        strategy = choose(best_of, search, verify is not None, budget, request.sampling.greedy)
        if strategy is None:
            utterances = plain.utterances(self.backend, self.codec, request, self._listen)
        else:
            from llasa.search import chunks, task

            verify = ("content" if self._recogniser else "whisper") if verify is None else verify
            tools = task.make_tools(self.backend, self.vocabulary, self.codec, strategy, verify, self._load_verifier)
            account = tools.account
            utterances = chunks.utterances(tools, request, strategy, budget)
        done: list[Utterance] = []

        def speech() -> Speech:
            for note in account.notes if account else ():
                warnings.warn(note, LlasaWarning, stacklevel=3)
            timings = {**total_work(done), "total": time.perf_counter() - began}
            return Speech(join(done, self.rate, request.speed), self.rate, request, done, timings, self.timer, account)

        try:
            for utterance in utterances:
                done.append(utterance)
        except KeyboardInterrupt as stop:
            raise Interrupted(speech()) from stop
        if not any(len(u.codes) for u in done):
            raise NoSound
        return speech()

    def stream(self, text: str, voice: VoiceLike = None, seed: int | None = None, **options: Unpack[Options]) -> Stream:
        """Speaks a text and yields its audio as it is made: float32 arrays, the first after about 0.2 s of audio.

        Arguments and errors are those of `say`. The codes are the same, too, except that audio cannot be taken back
        once it is yielded: a chunk that runs away is cut off instead of spoken again, unless it is the only one and has
        up to four words. The levels of chunks are not equalised.
        """
        return Stream(self.backend, self.codec, self.request(text, voice, seed, options), self.timer, self._listen)

    def transcribe(self, source: str | Path | np.ndarray, rate: int | None = None) -> Transcript:
        """Writes down what is said in a recording of any length; nothing is said in silence, noise and music.

        Args:
            source: an audio file, or samples (N,).
            rate: the rate of `source` in Hz, if it is an array; by default this model's.

        Raises:
            LlasaError: the source is not audio, or this model was not trained to recognise speech.
        """
        return self.listener.transcribe(source, rate)

    @cached_property
    def listener(self) -> Listener:
        """Recognises speech. Raises LlasaError if this model was not trained to."""
        return make_listener(self.folder, self.vocabulary, self.codec, self.backend, self._planner.lexicon is not None)

    def clone(
        self, source: str | Path | np.ndarray, transcript: str | None, name: str = "clone", rate: int | None = None
    ) -> Voice:
        """Makes a voice from a recording of somebody. Silence, noise around the speech and long pauses are cut.

        Args:
            source: an audio file, or samples (N,).
            transcript: the words spoken in it; None lets the model's recogniser write down what it hears.
            name: the voice's name.
            rate: the rate of `source` in Hz, if it is an array; by default this model's.

        Raises:
            LlasaError: the source is not audio, or has less than 1 s or more than 30 s of speech; or the transcript is
                empty, is not what the model's recogniser hears, or should be written down without a recogniser.
        """
        from llasa.verifiers.transcripts import transcript_of

        samples = self._voices.hear(source, rate)
        heard = transcript_of(samples, self.rate, transcript, self._listen() if self._listen else None)
        return self._voices.make(samples, heard, name)

    def voices(self) -> dict[str, Path]:
        """The file of every voice, by the voice's name: the user's own voices and the model's presets."""
        return self._voices.files()

    def voice(self, voice: VoiceLike = None) -> Voice | None:
        """Finds a voice by name or file, with this model's codes; None finds the model's default, if it has one.

        Raises:
            LlasaError: no voice has that name, its file is damaged, or its codes are from another codec and it holds no
                audio to encode again.
        """
        return self._voices.find(voice)

    @property
    def timer(self) -> Timer:
        """Tells when each word of a speech is said."""
        return Timer(self.backend, self.codec, self._head, self._listen)

    def request(self, text: str, voice: VoiceLike, seed: int | None, options: Options) -> Request:
        """What `stream` speaks."""
        chosen = None if voice is None and options.get("speaker") else self.voice(voice)
        return make_request(self._planner, self.defaults, text, chosen, seed, options)


# `help(Llasa.say)` shows the options, too, whose documentation is written only once.
for _verb, *_options in ((Llasa.say, Options, SearchOptions), (Llasa.stream, Options)):
    _verb.__doc__ = "\n\n".join(getdoc(part) or "" for part in (_verb, *_options))
