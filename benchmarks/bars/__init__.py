"""The bars that the embedded voice is held to, a file each for what is measured apart; `quality.py` runs them.

All sounds are at 16 kHz and at the level at which `clone` encodes. A figure meets its bar by itself; its interval is
printed beside it. Whatever is drawn at random has a fixed seed. Results name sentences and clips by their numbers, and
hold no words of theirs: held-out lists are others' to publish.
"""
