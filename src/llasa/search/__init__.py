"""Spends compute at inference: samples many candidates, scores them with verifiers, and keeps the best."""
