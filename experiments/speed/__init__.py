"""The benchmark: training, decoding and preparing images here and in other libraries."""
