"""Methods: the rows of a comparison. Each is a composition of rounds and stages."""
