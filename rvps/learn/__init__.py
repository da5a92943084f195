"""Values proposed from evidence that somebody trusts already: a draft, for people to look at, sign and approve."""
