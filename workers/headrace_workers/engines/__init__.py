"""Engines: the programs that run models. They know neither broker nor store; only engine processes import them."""
