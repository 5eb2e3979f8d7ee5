"""Tests of the pure layers: values and machines, without sockets and without a clock."""
