"""Shows, part by part, that this package computes what the models' own code computes; writes results/parity.md.

    pip install --no-deps --target reference xcodec2==0.1.5 vector-quantize-pytorch==1.17.8 einops==0.8.0 \\
        einx==0.3.0 frozendict==2.5.1 torchtune==0.3.1
    python benchmarks/parity.py --reference reference --size full [--only codec,...] [AUDIO ...]

The weights are random, because official ones were not available; the sizes are the official ones, or small. AUDIO are
recordings of speech, a minute or more in all; without them, flite reads. Each part is a module of its own, parity_*.py.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import parity_codec
import parity_features
import parity_lm
from parity_rows import Options, Row, table

from llasa import audio
from llasa.data.teachers.flite import TEACHERS, Speaker, speak
from llasa.measure.tables import write_text

RESULTS = Path(__file__).parent / "results" / "parity.md"
PASSAGE = (
    "The ferry left the harbour a little before seven. Nobody on deck said much, and the gulls followed us as far as "
    "the lighthouse. By noon the wind had turned, so the captain chose the longer way around the island. We ate bread "
    "and cold soup, played two games of chess, and watched the rain come closer over the water."
)
# A part's name, its heading, and the function that makes its lines and remarks.
PARTS: dict[str, tuple[str, Callable[[Options], tuple[list[Row], str]]]] = {
    "codec": ("Codec", parity_codec.run),
    "features": ("Features of the semantic encoder", parity_features.run),
    "lm": ("Language model", parity_lm.run),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", nargs="*", type=Path, help="recordings of speech, a minute or more in all")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, separated by commas, of {', '.join(PARTS)}")
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument("--reference", type=Path, help="folder with the reference packages, see above")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := set(chosen) - PARTS.keys():
        parser.error(f"there is no part called {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")

    recordings = [audio.load(path) for path in arguments.audio]
    recordings = recordings or [speak(PASSAGE, Speaker(name, name))[0] for name in TEACHERS]
    lines = [f"# Parity, {arguments.size} size, random weights\n"]
    passed = True
    for name in chosen:
        heading, part = PARTS[name]
        with tempfile.TemporaryDirectory(prefix="parity") as scratch:
            options = Options(arguments.size == "full", np.concatenate(recordings), arguments.reference, Path(scratch))
            rows, remarks = part(options)
        passed &= all(row.passed is not False for row in rows)
        lines += [f"## {heading}\n", table(rows), remarks + "\n"]
    lines += [f"- {name}: {fact}" for name, fact in machine.describe().items()]
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines))
    sys.exit(not passed)


if __name__ == "__main__":
    main()
