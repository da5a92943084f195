"""Tests of the reference value provider."""
