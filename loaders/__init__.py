"""The way in: bytes and text become a Machine."""
