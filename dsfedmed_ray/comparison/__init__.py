"""Runs side by side: methods, and their differences on the same split and seed."""
