"""The engine's version: it is part of every stored feature's key and of every record."""

__version__ = "0.1.0"
