"""What tests give to the Python processes that they start."""
