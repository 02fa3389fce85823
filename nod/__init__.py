"""`nod`, the command-line client: runs on the user's machine and knows the product by its HTTP API only."""

__version__ = "0.1.0"
