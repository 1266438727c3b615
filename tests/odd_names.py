"""Names of files and folders that other programs take for a pattern, a URL, SQL, an option or a shell's word."""

from __future__ import annotations

ODD_NAMES = (
    "a?b", "[x]", "a'b", 'a"b', "a#b", "a b ", " a", "a%20b", "a*b", "é猫", "line\nbreak", "-x", "{a,b}", "~x", "$HOME", "a\\b", "a\\[b",
    "a;b", "s3:x", "year=2024", "run_id=x", "x.tar#y", "x.zip",
)  # fmt: skip
NOT_UTF8 = b"\xe9\xff".decode(errors="surrogateescape")
"""Python's form of a name that is not UTF-8."""
