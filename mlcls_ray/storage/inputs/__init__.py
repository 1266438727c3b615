"""What a job takes as input; one kind, one file."""
