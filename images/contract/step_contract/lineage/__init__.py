"""Lineage: what each artifact was made from, as its manifest records it, traced to the source files (decision 33)."""
