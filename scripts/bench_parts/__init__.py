"""The parts of ``scripts/bench``: one module per group of figures, a cheap load generator, and the bare control."""
