"""arm64: a batch guest at EL2 on QEMU."""
