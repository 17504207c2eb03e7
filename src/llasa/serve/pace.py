"""How fast codes come, foretold from what was measured: what one stream more would cost the others.

A step with n rows takes about a + b n seconds a token, and each new piece stops all rows while its prompt is prefilled.
"""

import math

SMOOTH = 0.05  # weight of the newest measurement
# As long as the number of rows has hardly varied, half the time is taken to be the same for any number; this says how
# much the line through the measured steps is drawn there, as a variance of the number of rows.
PRIOR = 0.2
FADING = 0.99  # what is left of the worst surprise after each step
WORST = 0.5  # seconds; whoever is surprised by more cannot be protected
CODES = 200.0  # of a piece, until some were counted


class Pace:
    """What steps and prompts cost lately. It is written by one thread.

    Attributes:
        prefill: seconds that a prompt takes.
        codes: how many codes a piece has.
        surprise: by how many seconds a step came later than foretold, at worst, lately.
    """

    def __init__(self) -> None:
        self.prefill, self.codes, self.surprise = 0.0, CODES, 0.0
        self._weight = self._rows = self._time = self._rows2 = self._both = 0.0  # means over steps, and of products

    def step(self, rows: float, tokens: int, seconds: float) -> None:
        """Notes how long a step took.

        Args:
            rows: on average over its tokens.
            tokens: of the row that got most.
        """
        time = seconds / tokens
        if self._weight:
            self.surprise = min(WORST, max(FADING * self.surprise, seconds - tokens * self._token(rows)))
        self._weight += SMOOTH * (1 - self._weight)
        share = SMOOTH / self._weight  # 1 at first, and then falls to SMOOTH
        self._rows += share * (rows - self._rows)
        self._time += share * (time - self._time)
        self._rows2 += share * (rows * rows - self._rows2)
        self._both += share * (rows * time - self._both)

    def start(self, prompts: int, seconds: float) -> None:
        """Notes how long some prompts took."""
        self.prefill += (SMOOTH if self.prefill else 1.0) * (seconds / prompts - self.prefill)

    def piece(self, codes: int) -> None:
        """Notes how many codes a piece had."""
        self.codes += SMOOTH * (codes - self.codes)

    def __call__(self, rows: float) -> float:
        """Codes a second that each of so many rows gets, prompts included; infinite as long as nothing was measured."""
        seconds = self._token(rows) + rows * self.prefill / self.codes
        return 1 / seconds if self._weight else math.inf

    def _token(self, rows: float) -> float:
        """Seconds a token of each of so many rows, prompts left out."""
        if not self._weight:
            return 0.0
        steepest = self._time / self._rows  # no time for no rows
        spread = self._rows2 - self._rows**2
        slope = (self._both - self._rows * self._time + PRIOR * steepest / 2) / (spread + PRIOR)
        return self._time + min(max(0.0, slope), steepest) * (rows - self._rows)
