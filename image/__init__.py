"""What the stages of `Containerfile` run. The standard library alone, but for `sbom`, which runs in the build stage."""
