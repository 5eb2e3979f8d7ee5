"""The objects that handlers are given; rows, columns, models."""
