"""The label table on disk: its files, its readers, and the commands that look after it. Knows nothing of Ray."""
