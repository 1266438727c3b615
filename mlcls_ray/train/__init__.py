"""Fine-tuning of networks, and evaluation of label tables."""
