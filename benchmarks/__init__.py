"""Measurements of the platform: each is one command."""
