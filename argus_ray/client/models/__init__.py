"""What the API answers, as frozen dataclasses. Fields and values that a newer server adds are kept."""
