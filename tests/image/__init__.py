"""The image, built by buildah and started by runc: `make test-image`."""
