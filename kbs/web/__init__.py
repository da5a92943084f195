"""HTTP: decode, call one use case, encode. One route table; Flask and the ASGI fast path dispatch through it."""
