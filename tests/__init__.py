"""The tests, and `tests.bed`: the machine room that tests, demo and benchmarks share."""
