"""arm64 on QEMU, many cases over one memory: what a walk writes back stays for the cases after it."""
