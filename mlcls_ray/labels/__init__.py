"""Pure functions on arrays: vocabularies, thresholds, selection of labels, metrics, calibration."""
