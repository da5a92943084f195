"""Typed clients of a broker: a guest that attests itself, and an administrator.

The CLI, tests and measurements use them.
"""
