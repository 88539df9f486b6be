"""GPU workers: pull jobs, repaint pictures, write them and their records back."""
