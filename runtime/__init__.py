"""The runtime: graphs, operators, pre-inference and sessions. It imports none of its siblings."""

VERSION = "0.1.0"
