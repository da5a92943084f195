"""Reference Value Provider: signed statements in, reference values that are valid now out. Never imports kbs."""
