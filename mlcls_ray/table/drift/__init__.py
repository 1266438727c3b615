"""`mlcls drift`: what came in with the newest run, against what came in with the runs before it."""
