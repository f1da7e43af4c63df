"""Semantic segmentation: overlap metrics and their intervals, heads over a backbone, windows, and their training."""
