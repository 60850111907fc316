"""Emulated address spaces: processes with real page tables, areas, files, swap, and one accounting of all models."""
