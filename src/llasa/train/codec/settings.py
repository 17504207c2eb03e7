"""Defines the settings in recipes of the codec, `recipes/xcodec2/*.yaml`."""

from dataclasses import dataclass

from llasa.errors import LlasaError
from llasa.train.settings import Schedule, key, part

NEVER = 10**9
# (FFT size, mel bands): short windows resolve consonants, long ones resolve harmonics.
SCALES = ((256, 20), (512, 40), (1024, 80), (2048, 160))


@dataclass
class Data:
    """What the codec learns from."""

    corpus: list[str] = key([], "folders of audio shards", required=True)
    validation: list[str] = key([], "folders of audio shards to measure on", required=True)
    shapes: list[list[int]] = key(
        [[128, 5], [128, 5], [128, 5], [320, 2]],
        "`[frames of a crop, crops in a batch]` of each step, in turn: mostly short crops and some long ones, because "
        "the decoder attends to the whole crop",
        least=1,
    )
    readers: int = key(0, "threads that read and decode ahead; 0: a batch is made when it is needed", least=0)


@dataclass
class Sizes:
    """A codec from scratch."""

    semantic_encoder: str | None = key(
        None, "the encoder of what is said: a recogniser's training folder, or a w2v-BERT's folder or hub id"
    )
    tap: int = key(4, "how many of its layers are used", least=1, most=1000)
    hidden: int = key(256, "width of the decoder", least=1, most=100_000)
    intermediate: int = key(1024, "width inside its feed-forward layers", least=1, most=100_000)
    layers: int = key(6, "layers of the decoder", least=1, most=1000)
    heads: int = key(4, "attention heads of a layer", least=1, most=1000)
    encoder_hidden: int = key(6, "channels of the acoustic encoder's first layer", least=1, most=100_000)
    ratios: list[int] = key(
        [8, 5, 4, 2], "by what factor each layer of the acoustic encoder shortens time", least=1, most=320
    )
    levels: list[int] = key([4] * 6, "levels of each dimension of the quantiser", least=2, most=65536)
    dropout: float = key(0.0, "dropout in the decoder", least=0, most=1)


@dataclass
class Losses:
    """Weights of the losses that apply from the first step on."""

    mel_weight: float = key(15.0, "log-mel spectra", least=0)
    stft_weight: float = key(3.0, "STFT magnitudes", least=0)
    scales: list[list[int]] = key(
        [list(scale) for scale in SCALES], "`[FFT size, mel bands]` of both", least=1, most=100_000
    )
    semantic_weight: float = key(5.0, "the semantic encoder's features, reconstructed from the codes", least=0)
    semantic_relative: bool = key(True, "whether that is in units of the features' deviation")
    phone_weight: float = key(1.0, "the phones that a recogniser's probe finds in those features", least=0)
    entropy_weight: float = key(0.5, "use of the whole codebook", least=0)
    bound_weight: float = key(0.02, "latents near zero", least=0)
    pitch_weight: float = key(
        0.0, "three dimensions of the quantiser that encode pitch; `sizes.levels` must then end in 4, 3, 3", least=0
    )
    frame_weight: float = key(0.0, "the spectrum that the decoder predicts for each frame by itself", least=0)


@dataclass
class Discriminators:
    """The adversarial losses."""

    at: int = key(NEVER, "the first step with discriminators", least=0)
    size: str = key("small", "`small`, or `full` as upstream's", among=("small", "full"))
    channels: int = key(8, "channels of the first layer of small ones", least=1, most=100_000)
    periods: list[int] = key(
        [2, 3, 5, 7, 11], "periods, in samples, of the discriminators of waveforms", least=1, most=100_000
    )
    fft_sizes: list[int] = key(
        [78, 126, 206, 334, 542, 876, 1418, 2296], "FFT sizes of the discriminators of spectra", least=1, most=100_000
    )
    lr_share: float = key(0.25, "their learning rate, as a share of `schedule.lr`", least=0)
    fooling_weight: float = key(1.0, "weight of the adversarial loss", least=0)
    matching_weight: float = key(1.0, "weight of feature matching", least=0)


@dataclass
class Perceptual:
    """The perceptual loss, which compares a frozen speech model's features of both sounds."""

    at: int = key(NEVER, "the first step with this loss", least=0)
    model: str | None = key(None, "the speech model's folder or hub id")
    layers: list[int] = key([10, 21], "the first and the last layer to compare, counted from 1", least=1)
    weight: float = key(1.0, "weight of the loss", least=0)


@dataclass
class CodecSettings:
    """A recipe of the codec."""

    out: str = key("", "the run's folder", required=True)
    start: str | None = key(
        None, "a codec to start from, by a name that `llasa encode --model` takes; without it, a fresh one"
    )
    learn: str = key(
        "decoder", "which part of it learns: `decoder`, so that its codes stay the same, or `all`",
        among=("decoder", "all"),
    )  # fmt: skip
    compile: bool = key(True, "whether torch compiles the acoustic encoder")
    data: Data = part(Data, "what it learns from")
    sizes: Sizes = part(Sizes, "a codec from scratch")
    losses: Losses = part(Losses, "weights of the losses that apply from the first step on")
    discriminators: Discriminators = part(Discriminators, "the adversarial losses")
    perceptual: Perceptual = part(Perceptual, "the perceptual loss, by a frozen speech model")
    schedule: Schedule = part(Schedule, "how long and how fast", lr=8e-4, betas=[0.8, 0.99], clip=5.0)

    @property
    def frozen(self) -> bool:
        """Whether the codes stay the same and only the decoder learns."""
        return self.start is not None and self.learn == "decoder"

    @property
    def learns_pitch(self) -> bool:
        """Whether the codes are taught to encode pitch."""
        return self.losses.pitch_weight > 0 and not self.frozen

    def check(self) -> None:
        """Refuses impossible settings, before anything is loaded.

        Raises:
            LlasaError: says what is impossible, and what to change.
        """
        if not self.start and not self.sizes.semantic_encoder:
            raise LlasaError(
                "the recipe names no encoder: set `sizes.semantic_encoder` for a codec from scratch, or `start`"
            )
        perceptual = self.perceptual
        if perceptual.at < self.schedule.steps and not perceptual.model:
            raise LlasaError("`perceptual.at` needs `perceptual.model`: the folder or hub id of a speech model")
        if len(layers := perceptual.layers) != 2 or not 1 <= layers[0] <= layers[1]:
            raise LlasaError(f"`perceptual.layers` is {layers}: it must be a first and a last layer, from 1 on")
        if not self.data.shapes or not all(len(shape) == 2 for shape in self.data.shapes):
            raise LlasaError("`data.shapes` must hold pairs: frames of a crop, and crops in a batch")
        if not self.losses.scales or not all(len(scale) == 2 for scale in self.losses.scales):
            raise LlasaError("`losses.scales` must hold pairs: an FFT size, and mel bands")
        self._check_lengths()

    def _check_lengths(self) -> None:
        """Refuses FFT sizes and periods that do not fit into the shortest crop."""
        from llasa.codec.features import HOP

        samples = HOP * min(frames for frames, _ in self.data.shapes)
        # An STFT steps by a quarter of its size, and reflects half of it at both ends.
        sizes = {"losses.scales": [size for size, _ in self.losses.scales]}
        if self.discriminators.at < self.schedule.steps:
            sizes["discriminators.fft_sizes"] = self.discriminators.fft_sizes
            if not (self.discriminators.fft_sizes or self.discriminators.periods):
                raise LlasaError(
                    "`discriminators` names neither `periods` nor `fft_sizes`: name some, or leave out `at`"
                )
            if max(self.discriminators.periods, default=1) > samples:
                raise LlasaError(f"`discriminators.periods` may be at most {samples}, the samples of the shortest crop")
        for name, given in sizes.items():
            if given and not 4 <= min(given) <= max(given) < 2 * samples:
                raise LlasaError(
                    f"`{name}` has FFT sizes from {min(given)} to {max(given)}: they must lie between 4 and "
                    f"{2 * samples - 1}, twice the shortest crop"
                )
