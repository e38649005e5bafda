"""What a model has answered, step by step, over HTTP."""
