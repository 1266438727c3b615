"""Engines: they execute a network on a device."""
