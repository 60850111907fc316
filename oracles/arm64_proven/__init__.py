"""arm64 on QEMU, one self-contained case after another: every word compared, every physical address proven."""
