"""The Python client. Its names are those of `everfaas_core`; importing this package imports nothing of it."""
