"""Learning: what happens to tensors. No Ray and no files."""
