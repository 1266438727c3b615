"""What executes a network, and on which device."""
