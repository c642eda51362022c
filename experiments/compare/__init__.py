"""Who converges how fast: per iteration, per gradient-equivalent, per second."""
