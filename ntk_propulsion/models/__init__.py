"""Models: loading, the roles of their layers, tokens, the probe head, scoring."""
