"""What the manuals say: bit layouts, registers and fault codes of x86-64 and arm64. Facts only."""
