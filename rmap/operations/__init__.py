"""The kernel's operations on address spaces (spec: who calls which rmap function when), one module per family."""
