"""arm64 translation: regimes from system registers, the reference walker, stage 2, granule protection."""
