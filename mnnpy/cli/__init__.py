"""The command line: one module per command, assembled in :mod:`mnnpy.cli.main`."""
