"""One engine a file. They run in the worker process, in the engine's own environment, and import nothing of pcc (but
for pcc's)."""
