"""x86-64 (Intel SDM volume 3A chapter 5, AMD APM volume 2 chapter 5): entries, registers, fault codes."""
