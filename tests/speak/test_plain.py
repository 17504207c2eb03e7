"""Plain speaking: which chunks are heard again by the recogniser, and which take of them is kept."""

import numpy as np
import pytest
from small_models import ALPHABET, make_lm

from llasa.codec import Codec, load_codec
from llasa.engine import Sampling
from llasa.engine.torch_engine import Engine
from llasa.speak import plain
from llasa.speak.plan import Planner
from llasa.speak.request import Request
from llasa.speak.speech import Utterance
from llasa.text.splitting import Chunk
from llasa.vocabulary import character_tokenizer, read_vocabulary
from llasa.voice import Voice

VOCABULARY = read_vocabulary(character_tokenizer(ALPHABET, 64, context=512))
ENGINE = Engine(make_lm(len(VOCABULARY.tokenizer)), VOCABULARY.first, VOCABULARY.size, VOCABULARY.end)
VOICE = Voice("v", "Some words that are said.", np.arange(60, dtype=np.uint16))


class Listener:
    """Doubts every sound, the longer the more."""

    def __init__(self, limit: float = 0) -> None:
        self.limit, self.heard = limit, list[tuple[str, int]]()

    def doubt(self, text: str, samples: np.ndarray) -> float:
        self.heard.append((text, len(samples)))
        return len(samples) - self.limit

    def surplus(self, text: str, samples: np.ndarray) -> tuple[float, float] | None:
        return None


@pytest.fixture(scope="module")
def codec(codec_folder) -> Codec:
    return load_codec(codec_folder)


@pytest.fixture(autouse=True)
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random codec is nearly silent."""
    monkeypatch.setattr(plain, "is_faint", lambda samples, rate: not len(samples))


def speak(codec: Codec, listener: Listener | None, *texts: str, temperature: float = 1.0) -> list[Utterance]:
    chunks = tuple(Chunk(text, 0.0) for text in texts)
    planner = Planner(VOCABULARY, None, 50, 512)
    request = Request("", chunks, (1.0,) * len(texts), planner, VOICE, 3, Sampling(temperature=temperature))
    return list(plain.utterances(ENGINE, codec, request, (lambda: listener) if listener else None))


TEXTS = ("We said no no no to all of them.", "This one has many words but none of them repeats.", "Hi.")


def test_only_few_words_and_words_that_repeat_are_listened_to(codec: Codec):
    listener = Listener(limit=10**9)
    heard = speak(codec, listener, *TEXTS)
    assert {text for text, _ in listener.heard} == {TEXTS[0], TEXTS[2]}
    for one, other in zip(heard, speak(codec, None, *TEXTS), strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)


def test_what_is_doubted_is_spoken_again_and_the_least_doubted_kept(codec: Codec):
    listener = Listener()
    first = speak(codec, None, *TEXTS)
    again = speak(codec, listener, *TEXTS)
    np.testing.assert_array_equal(first[1].codes, again[1].codes)
    for place in (0, 2):
        lengths = {length for text, length in listener.heard if text == TEXTS[place]}
        assert len(lengths) > 1
        assert len(again[place].samples) == min(lengths)
        assert len(first[place].samples) in lengths
    enough = Listener(limit=1 + max(length for _, length in listener.heard))
    assert len(speak(codec, enough, TEXTS[0])[0].codes) == len(first[0].codes)


def test_what_is_said_once_too_often_in_every_take_is_cut_out(codec: Codec):
    class Counter(Listener):
        """Hears something once too often for 0.1 s, until it is cut out."""

        def doubt(self, text: str, samples: np.ndarray) -> float:
            super().doubt(text, samples)
            return -1.0 if len(samples) in cut else 1000.0 + len(samples)

        def surplus(self, text: str, samples: np.ndarray) -> tuple[float, float]:
            cut.add(len(samples) - 5 * codec.hop)
            return 0.02, 0.12

    cut = set[int]()
    listener = Counter()
    (spoken,) = speak(codec, listener, "Hi.")
    assert len(listener.heard) > plain.ATTEMPTS
    assert len(spoken.samples) in cut
    assert len(spoken.samples) == len(spoken.codes) * codec.hop
    assert len(spoken.codes) + 5 in {length // codec.hop for _, length in listener.heard}


def test_a_greedy_take_is_not_listened_to(codec: Codec):
    listener = Listener()
    speak(codec, listener, "Hi.", temperature=0.0)
    assert not listener.heard
