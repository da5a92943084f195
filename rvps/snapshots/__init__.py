"""What brokers evaluate with: all values valid at one moment, and how they travel."""
