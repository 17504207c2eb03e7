"""Decodes a recording in a process of its own: standard input to standard output.

`python -m llasa.serve.decoding SECONDS` reads recordings of up to so many seconds.
"""

import io
import resource
import sys

BYTES = 20 << 20  # of a recording
RATE = 16000  # Hz, of the samples
MEMORY = 1 << 30  # bytes that the process may have
PATIENCE = 30  # seconds that it may take


def main() -> None:
    """Writes a plus and samples (N,) float32, or a minus and a message."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE, PATIENCE))
    from llasa import audio
    from llasa.errors import LlasaError

    data = sys.stdin.buffer.read(BYTES + 1)
    try:
        answer = b"+" + audio.load(io.BytesIO(data), RATE, max_seconds=float(sys.argv[1])).tobytes()
    except LlasaError as error:
        answer = b"-" + str(error).replace("the audio", "the recording").encode()
    sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    main()
