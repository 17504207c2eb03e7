"""Defines the settings in recipes of the recogniser, `recipes/*/recogniser.yaml`."""

from dataclasses import dataclass

from llasa.errors import LlasaError
from llasa.train.settings import Schedule, key, part


@dataclass
class Data:
    """What the recogniser learns from."""

    corpus: list[str] = key([], "folders of shards, of audio or of codes", required=True)
    validation: str = key("", "a folder of audio shards to measure on", required=True)
    codec: str = key("", "the codec that decodes shards of codes; a corpus of audio needs none")
    batch_seconds: float = key(60.0, "seconds of speech in a step", above=0, most=1e5)
    longest: float = key(14.0, "seconds of the longest utterance; longer ones are left out", above=0)


@dataclass
class Sizes:
    """A fresh recogniser."""

    hidden: int = key(192, "width", least=1, most=100_000)
    layers: int = key(6, "layers", least=1, most=1000)
    heads: int = key(4, "attention heads of a layer", least=1, most=1000)
    intermediate: int = key(768, "width inside the feed-forward layers", least=1, most=100_000)
    kernel: int = key(15, "frames that a layer's convolution sees", least=1, most=1000)
    positions: str = key(
        "",
        "how attention encodes positions, a `position_embeddings_type` of transformers' `Wav2Vec2BertConfig`; without "
        "it, only the convolutions encode order",
    )


@dataclass
class Losses:
    """Losses of the layer that a codec uses, besides the loss of the letters."""

    tap: int = key(4, "the layer that a codec uses", least=1)
    phone_weight: float = key(1.0, "weight of predicting each frame's phone from it", least=0)
    mel_weight: float = key(0.5, "weight of reconstructing the mel spectrum from it", least=0)


@dataclass
class RecogniserSettings:
    """A recipe of the recogniser."""

    out: str = key("", "the run's folder", required=True)
    start: str = key("", "a recogniser's folder to start from, which also decides the sizes; without it, a fresh one")
    data: Data = part(Data, "what it learns from")
    sizes: Sizes = part(Sizes, "a fresh recogniser")
    losses: Losses = part(Losses, "losses of the layer that a codec uses")
    schedule: Schedule = part(
        Schedule, "how long and how fast", steps=2000, lr=1e-3, betas=[0.9, 0.98], ema=0.995, checkpoint_minutes=3.0
    )

    def check(self) -> None:
        """Refuses impossible settings, before anything is loaded.

        Raises:
            LlasaError: says what is impossible, and what to change.
        """
        if not self.start and self.losses.tap > self.sizes.layers:
            raise LlasaError(
                f"`losses.tap` is {self.losses.tap}: it must be at most `sizes.layers`, {self.sizes.layers}"
            )
        if not self.start and self.sizes.hidden % self.sizes.heads:
            raise LlasaError(
                f"`sizes.hidden` is {self.sizes.hidden}: it must be a multiple of `sizes.heads`, {self.sizes.heads}"
            )
