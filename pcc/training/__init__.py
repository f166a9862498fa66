"""Compression that trains: structures, methods and recipes around one loop."""
