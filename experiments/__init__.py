"""Experiments: one folder per question, on one engine, through public names only."""
