"""Tests of bnprobe.weights."""
