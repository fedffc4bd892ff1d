"""Pre-inference: types, regions, selection, memory, plan; everything is decided here."""
