"""The system under test: real servers, real workers, and the wires between them, all of which can be broken."""
