"""The stages of a job, in order: `Read`, `Decode`, `Score`, `Select`, `Annotate`; and `Hash`, which finds copies before a job starts.

A stage is a class. A worker constructs it once, with the `RunSpec` of the run, and calls it on one batch after the other. It is testable
without Ray. A batch is a dict of columns of equal length, or an Arrow table where a comment says so; `schema` names the columns.
Between the stages an unknown value is -1 (integers), NaT (times) or "" (text), because numpy has no null; the tables hold null.
"""
