"""Benchmarks: correct first, then interleaved, medians with spread, ratios to the strongest fair peer of the same run; and
peaks of memory."""
