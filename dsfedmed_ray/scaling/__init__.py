"""Scaling studies: how seconds, memory and bytes of a round grow, and what a larger run costs."""
