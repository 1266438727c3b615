"""A labeling job on Ray: `label` (check → plan → label → commit), `pipeline` (the stages), `supervise` (what can happen meanwhile)."""
