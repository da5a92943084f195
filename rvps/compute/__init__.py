"""Reference values from artifacts: pure functions over bytes and readers, one module for each way of measuring."""
