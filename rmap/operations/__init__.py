"""What mm does to page tables, in the kernel's order, through the table editor; rmap counts what is written.

Each operation returns the sentences that the kernel would tell somebody: a fork refused, a page copied.
"""
