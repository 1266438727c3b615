"""The map steps between manifest and label table: thin callables on batches, testable without a cluster.

A batch is a dict of columns (`schema`'s names) of equal length. What may be unknown is int64 -1, datetime64 NaT or "" between
the stages, and null in the tables: numpy has no null.
"""
