"""What runs on a machine outside Ray. Standard library and filelock only; never imports ray."""
