"""Fuzz targets: one module for each parser, with `check(data)` and `seeds()`. `make fuzz` runs them under atheris.

`check` swallows the refusals that its parser documents; whatever else comes out is a finding.
"""
