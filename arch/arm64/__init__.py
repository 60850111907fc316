"""arm64 (Arm ARM, VMSAv8-64 and VMSAv9-128): descriptors, registers, fault status codes."""
