"""The machine: physical memory, translation regimes, walks, table editing."""
