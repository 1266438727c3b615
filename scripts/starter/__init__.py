"""How the shipped model is made. Not installed."""
