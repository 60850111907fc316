"""Scenarios: small texts that say who maps what, run under the three accounting models side by side."""
