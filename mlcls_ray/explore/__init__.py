"""Looking at label tables: the report, the comparison of two tables, and exports for other tools."""
