"""x86: a batch guest on QEMU and Bochs."""
