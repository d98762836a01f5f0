"""`meshctl doctor`: what keeps this machine out of the mesh, by name, and what mends it."""
