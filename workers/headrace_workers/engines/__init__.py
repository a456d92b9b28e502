"""Engines: the programs that run models. They know neither broker nor store, and are imported in engine processes only."""
