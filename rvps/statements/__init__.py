"""The log of statements and everything that it adds up to: events, who may add them, their states, the view."""
