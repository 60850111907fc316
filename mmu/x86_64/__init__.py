"""x86 translation: regimes from control registers, the reference walker, second stages."""
