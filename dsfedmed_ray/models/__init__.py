"""Models: segmenters of both scales, and the generator."""
