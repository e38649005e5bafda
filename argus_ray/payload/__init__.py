"""What travels to the workers: each module stands alone, and is imported there by its plain name."""
