"""Policy evaluation: one port (`engine.py`), Wasm in process by default, an OPA server by choice."""
