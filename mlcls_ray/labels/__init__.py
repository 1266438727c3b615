"""Class names, thresholds, selection and metrics: pure functions on arrays."""
