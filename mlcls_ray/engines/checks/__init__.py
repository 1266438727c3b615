"""Checks of this machine. `mlcls doctor` shows all of them; a job is refused with the message of the first that fails."""
