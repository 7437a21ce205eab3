"""One loop for pre-training, continual pre-training and instruction tuning."""
