"""`meshctl connect`: the configuration that makes a client use the mesh."""
