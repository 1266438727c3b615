"""Kinds of input: one file per kind, behind the protocol in `base`; `listing` chooses the kind of an input."""
