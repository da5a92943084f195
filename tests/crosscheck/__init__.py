"""Independent implementations asked the same questions: one verdict, or a difference that is listed with its reason."""
