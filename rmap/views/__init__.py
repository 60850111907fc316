"""/proc as the kernel prints it, per accounting model."""
