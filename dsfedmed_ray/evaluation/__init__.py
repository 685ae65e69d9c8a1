"""Scores of segmentation models and of synthetic sets."""
