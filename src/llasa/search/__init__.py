"""Spending compute at inference: many candidates, judged by verifiers, the best one kept."""
