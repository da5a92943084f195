"""One PostgreSQL database shared by several brokers, which are one broker then: rules, claims and decision inputs."""
