"""`headrace plan`: what a load would cost under some scaling settings, by simulation of the real policy."""
