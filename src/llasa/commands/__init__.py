"""The verbs of the command line, a module each; `llasa.cli` puts them together."""
