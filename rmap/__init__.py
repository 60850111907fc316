"""Linux's reverse-map accounting, driven by page-table entry changes."""
