"""Tests of what compares two recordings."""
