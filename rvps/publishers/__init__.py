"""Who may state reference values."""
