"""Campaigns of random translations against emulators that nobody here wrote; see README.md of this folder."""
