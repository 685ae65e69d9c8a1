"""Where work happens: clients, workers, the foundation actor, checkpoints and the stage store."""
