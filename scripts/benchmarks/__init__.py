"""Benchmarks: one module each, run by scripts/bench. They print and record figures, and never decide a test."""
