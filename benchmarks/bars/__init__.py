"""The bars that the embedded voice must meet, with a file for each part of the measurement. `quality.py` runs them.

All sounds are at 16 kHz and at the level at which `clone` encodes. The figure itself must meet its bar; its interval is
printed beside it. Random draws have a fixed seed. Results name sentences and clips by number and contain none of their
words, since held-out lists may not be ours to publish.
"""
