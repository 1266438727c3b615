"""One execution over one manifest: plan, pipeline, sink, commit, verify, report. Ray lives here."""
