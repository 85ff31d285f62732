"""Measure our models against baselines: results are compared first, times are medians of interleaved runs."""
